"""The commands that look at things: `status`, `show`, `costs`."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batchata_tasks.cli.console import AsJson, ReadWith, Spec, boundary, err, load, out

if TYPE_CHECKING:
    from batchata_tasks.spec.run import RunSpec


class By(Enum):
    """What the lines of `batchata costs` are."""

    SPEC, BUDGET, MODEL, DAY = "spec", "budget", "model", "day"


def status(
    spec: Annotated[
        str | None,
        typer.Argument(
            help="Path of a spec, or a Batch's results_dir; without it, all runs of the ledger.",
            metavar="[SPEC]",
        ),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Make this ledger know a dataset whose own ledger is lost."),
    ] = False,
    overrides: ReadWith = None,
    as_json: AsJson = False,
) -> None:
    """Tell the newest runs, their batches and what they cost.

    `--rebuild` restores what a lost ledger knew of the spec's dataset, from the dataset's own folder;
    no run may be at work on it. The next run looks at the provider for what was sent and not landed.
    """
    from batchata_tasks.reports.status import runs_overview, runs_remedy, runs_table

    with boundary():
        if rebuild:
            _rebuild(spec, overrides)
        found = runs_overview(_named(spec, overrides) if spec is not None else None)
        if as_json:
            sys.stdout.write(json.dumps(found) + "\n")
        else:
            out.print(runs_table(found))
            if (remedy := runs_remedy(found)) is not None:
                out.print(remedy, highlight=False, soft_wrap=True)


def _rebuild(spec: str | None, overrides: list[str] | None) -> None:
    from batchata_tasks.common.errors import SpecError
    from batchata_tasks.common.settings import Settings
    from batchata_tasks.operations.rebuild import rebuild
    from batchata_tasks.planning.prepare import prepare_run

    if spec is None:
        message = "--rebuild: name the SPEC whose dataset the ledger is to know again."
        raise SpecError(message)
    for what, value in rebuild(
        prepare_run(_named(spec, overrides), Settings()), Settings()
    ).lines():
        err.print(f"{what}: {value}", markup=False, highlight=False, soft_wrap=True)


def _named(spec: str, overrides: list[str] | None) -> RunSpec:
    from batchata_tasks.operations.rebuild import spec_of_jobs

    return spec_of_jobs(Path(spec)) if Path(spec).is_dir() else load(spec, overrides, None)


def show(
    spec: Spec,
    rows: Annotated[int, typer.Option(help="How many rows to print.", min=1)] = 10,
    failed: Annotated[bool, typer.Option("--failed", help="Only rows that failed.")] = False,
    overrides: ReadWith = None,
    as_json: AsJson = False,
) -> None:
    """Print rows of the dataset, and how to open it elsewhere."""
    from batchata_tasks.reports.rows import dataset_rows, how_to_open, rows_table

    with boundary():
        loaded = load(spec, overrides, None)
        found = dataset_rows(loaded, rows, only_failed=failed)
        if as_json:
            sys.stdout.write(json.dumps(found, default=_plain) + "\n")
        else:
            out.print(
                rows_table(loaded, found, out.width) if found or not failed else "No row failed."
            )
            out.print(how_to_open(loaded), markup=False, highlight=False, soft_wrap=True)


def costs(
    by: Annotated[By, typer.Option(help="What the lines are.")] = By.SPEC,
    days: Annotated[
        int | None,
        typer.Option(help="The last N days, today included; 30 unless told.", min=1, max=36_500),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Since this day instead (UTC).", metavar="YYYY-MM-DD")
    ] = None,
    set_budget: Annotated[
        str | None,
        typer.Option(help="Change the limit of a shared budget first.", metavar="NAME=USD"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what was spent, reserved and saved, and what is left of shared budgets.

    Money counts on the day on which it was reserved.
    """
    from batchata_tasks.reports.costs import change_budget, gather, moment_of
    from batchata_tasks.reports.costs_table import print_costs

    with boundary():
        moment = moment_of(days, since)
        if set_budget is not None:
            change_budget(set_budget)
        found = gather(by.value, moment)
        if as_json:
            sys.stdout.write(json.dumps(found.to_json()) + "\n")
        else:
            print_costs(found, out)


def _plain(value: object) -> str:
    """Write money as digits, all else that JSON lacks as text."""
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
