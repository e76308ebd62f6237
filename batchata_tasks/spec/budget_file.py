"""Budgets that several specs share stand in one file, `budgets.yaml` of the working folder."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml

from batchata_tasks.common.json import as_dict
from batchata_tasks.spec.yaml_text import parse_yaml

BUDGETS = "budgets.yaml"


def named_budget(value: object) -> object:
    """Return the terms of a budget that a spec only names; other values as they are.

    Raises:
        ValueError: there is no such budget, or the file cannot be read.
    """
    if not isinstance(value, str):
        return value
    path = Path(BUDGETS).absolute()
    budgets = _budgets(path, value)
    if value not in budgets:
        close = get_close_matches(value, budgets, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(budgets)}."
        message = f"there is no budget {value!r} in {path}; {hint}"
        raise ValueError(message)
    return {"name": value, **as_dict(budgets[value])}


def _budgets(path: Path, name: str) -> dict[str, Any]:
    form = f"{name}: {{limit_usd: 20, period: month}}"
    try:
        budgets = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        message = f"there is no file {path} to look up {name!r} in; make it, with a line `{form}`."
        raise ValueError(message) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"{path} cannot be read: {' '.join(str(error).split())}"
        raise ValueError(message) from None
    terms = cast("dict[object, object]", budgets) if isinstance(budgets, dict) else {}
    if not terms or not all(isinstance(one, dict) for one in terms.values()):
        message = f"{path} has to map names of budgets to their terms, such as `{form}`."
        raise ValueError(message)
    return {str(one): value for one, value in terms.items()}
