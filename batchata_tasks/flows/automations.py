"""Registers automations on a Prefect server; those that changed are brought up to date.

`prefect deploy` does it as a step of prefect.yaml, and so does, by hand,
`python -m batchata_tasks.flows.automations [FILE]`.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.events.schemas.automations import AutomationCore
from pydantic import BaseModel, ValidationError

from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.common.validation import describe_error, first_error
from batchata_tasks.flows.deploying import unreachable
from batchata_tasks.operations.draft.files import automations_text
from batchata_tasks.spec.yaml_text import parse_yaml, problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import Automation

_OURS = "batchata"  # in the tags, or the events, that an automation of ours waits for
_SHIPPED = "the automations that are shipped"


class _File(BaseModel):
    automations: list[AutomationCore]


def register(file: str) -> dict[str, Any]:
    """Register the automations of a file; a step of `prefect deploy`, which takes it many times.

    Those of the same names are replaced if they changed, and stay switched off if somebody switched
    them off.

    Raises:
        SystemExit: the file will not do, the server cannot be asked, or it has an automation of
            that name which somebody else made.
    """
    _register_once(file)
    return {}


@cache
def _register_once(file: str) -> None:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = (
            f"automations: {printable(file)} cannot be read ({type(error).__name__}); "
            "`batchata init` writes it, or take the step out of prefect.yaml."
        )
        raise SystemExit(message) from None
    registered(text, file)


def registered(text: str, file: str) -> list[str]:
    """Register automations that are written in YAML; return their names.

    Raises:
        SystemExit: as `register`.
    """
    wanted = _parsed(text, file)
    try:
        with get_client(sync_client=True) as client:
            there = {one.name: _of_that_name(client, one.name) for one in wanted}
            for one in wanted:
                _refuse_foreign(there[one.name], file)
            for one in wanted:
                _put(client, one, there[one.name])
    except HTTPError as error:
        raise SystemExit(unreachable(error, "no automation was registered")) from None
    return [one.name for one in wanted]


def _parsed(text: str, file: str) -> list[AutomationCore]:
    try:
        return _File.model_validate(parse_yaml(text)).automations
    except yaml.YAMLError as error:
        wrong = problem(error)
    except ValidationError as error:
        path, first = first_error(error)
        wrong = f"{path}: {describe_error(first)}"
    message = f"automations: {printable(file)}: {printable(wrong)}; nothing was registered."
    raise SystemExit(message)


def _of_that_name(client: SyncPrefectClient, name: str) -> list[Automation]:
    return [one for one in client.read_automations_by_name(name) if one.name == name]


def _refuse_foreign(there: list[Automation], file: str) -> None:
    """Refuse to replace an automation that waits for nothing of ours."""
    for one in there:
        if _OURS not in json.dumps(one.model_dump(mode="json", exclude={"name", "description"})):
            message = (
                f"automations: the automation {one.name!r} on this Prefect server is not one of "
                f"these, and would be replaced: nothing was registered. Give it another name in "
                f"{printable(file)}, or delete it on the server."
            )
            raise SystemExit(message)


def _put(client: SyncPrefectClient, wanted: AutomationCore, there: list[Automation]) -> None:
    """Create an automation, or replace the one that is there; delete what was registered twice.

    One that is as it should be is left alone: to replace it would forget the runs it has in sight.
    """
    if not there:
        client.create_automation(wanted)
        return
    first, *doubles = there
    if "enabled" not in wanted.model_fields_set:
        wanted = wanted.model_copy(update={"enabled": first.enabled})
    if wanted.model_dump() != first.model_dump(include=set(AutomationCore.model_fields)):
        client.update_automation(first.id, wanted)
    for one in doubles:
        client.delete_automation(one.id)


def main(arguments: Iterable[str] | None = None) -> None:
    """Register the automations of a file, or those that are shipped."""
    parser = argparse.ArgumentParser(
        prog="python -m batchata_tasks.flows.automations",
        description="Register automations on the Prefect server that is configured: what it does "
        "about lost workers and cost limits. Given again, they are brought up to date.",
    )
    parser.add_argument("file", nargs="?", help="default: the automations that are shipped")
    given = parser.parse_args(None if arguments is None else list(arguments))
    if given.file is None:
        names = registered(automations_text(), _SHIPPED)
    else:
        try:
            text = Path(given.file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"{printable(given.file)} cannot be read ({type(error).__name__})")
        names = registered(text, given.file)
    sys.stdout.write(f"{pluralize(len(names), 'automation')}: {', '.join(names)}\n")


if __name__ == "__main__":
    main()
