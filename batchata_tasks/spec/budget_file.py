"""Budgets that several specs share stand in files named `budgets.yaml`.

They are looked for in the spec's folder and those above it, up to the root of its repository, then
in the working folder and those above it. The first file that has the name counts. A budget is one
limit, so another one of these files that gives the name other terms is refused. In the ledger such
a file is one voice, whatever number of specs name its budget.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from batchata_tasks.common.json import as_dict
from batchata_tasks.spec.checkouts import shared_name
from batchata_tasks.spec.yaml_text import parse_yaml, problem

if TYPE_CHECKING:
    from pydantic import ValidationInfo, ValidatorFunctionWrapHandler

    from batchata_tasks.spec.parts import Budget

BUDGETS = "budgets.yaml"
FOLDER = "folder"  # in the context of a validation: the folder of the spec's file
_ROOTS = ((".git",), ("prefect.yaml", "pyproject.toml"))  # what the root of a repository has


def named_budget(
    value: object, validated: ValidatorFunctionWrapHandler, info: ValidationInfo
) -> Budget | None:
    """Return the budget of a spec, which writes out its terms or only names it.

    Raises:
        ValueError: there is no such budget, two files disagree about it, or one cannot be read.
    """
    if not isinstance(value, str):
        return validated(value)
    path, terms = _looked_up(value, _folders(as_dict(info.context).get(FOLDER)))
    budget: Budget = validated({"name": value, **terms})
    return budget.stated_in(shared_name(path))


def _looked_up(value: str, folders: list[Path]) -> tuple[Path, dict[str, Any]]:
    """Return the terms of a budget by its name, and the file that has them."""
    # a link that leads nowhere, or a folder, is an error: whoever made it counts on its limits
    files = [folder / BUDGETS for folder in folders if os.path.lexists(folder / BUDGETS)]
    if not files:
        message = (
            f"there is no file {folders[0] / BUDGETS} to look up {value!r} in, nor one above it or "
            f"in the working folder; make it, with a line `{_form(value)}`."
        )
        raise ValueError(message)
    budgets = {path: _budgets(path, value) for path in files}
    having = [path for path in files if value in budgets[path]]
    if not having:
        names = list(dict.fromkeys(name for named in budgets.values() for name in named))
        close = get_close_matches(value, names, n=1)
        hint = f"perhaps {close[0]!r} is meant." if close else f"known are: {', '.join(names)}."
        message = f"there is no budget {value!r} in {' or '.join(map(str, files))}; {hint}"
        raise ValueError(message)
    terms = budgets[having[0]][value]
    for other in having[1:]:
        if budgets[other][value] != terms:
            message = (
                f"{having[0]} and {other} give {value!r} different terms; give it the same in "
                "both, or another name in one."
            )
            raise ValueError(message)
    if "name" in as_dict(terms):  # its spending would count as that of another budget
        message = f"{having[0]} gives {value!r} a `name` within its terms; remove it."
        raise ValueError(message)
    return having[0], as_dict(terms)


def _folders(of_spec: str | Path | None) -> list[Path]:
    """Return the folders to look in, the nearest first."""
    starts = [Path(of_spec), Path()] if of_spec is not None else [Path()]
    return list(dict.fromkeys(one for start in starts for one in _upwards(start.absolute())))


def _upwards(folder: Path) -> list[Path]:
    """Return a folder and those above it, up to the root of its repository, if it is in one."""
    line = [folder, *folder.parents]
    for marks in _ROOTS:
        for number, one in enumerate(line, 1):
            if any((one / mark).exists() for mark in marks):
                return line[:number]
    return [folder]


def _form(name: str) -> str:
    return f"{name}: {{limit_usd: 20, period: month}}"


def _budgets(path: Path, name: str) -> dict[str, Any]:
    if not path.exists():
        message = f"{path} is a link that leads nowhere; mend it, or remove it."
        raise ValueError(message)
    try:
        budgets = parse_yaml(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        message = f"{path}{problem(error)}"
        raise ValueError(message) from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {' '.join(str(error).split())}"
        raise ValueError(message) from None
    terms = cast("dict[object, object]", budgets) if isinstance(budgets, dict) else {}
    if not terms or not all(isinstance(one, dict) for one in terms.values()):
        message = f"{path} has to map names of budgets to their terms, such as `{_form(name)}`."
        raise ValueError(message)
    return {str(one): value for one, value in terms.items()}
