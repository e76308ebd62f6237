"""The table of the Python API's members is complete, and each row names a test that uses it."""

from __future__ import annotations

import ast
import dataclasses
import re

import pytest

import batchata_tasks
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| .* \| `(\w+)` \|$", PAGE, re.MULTILINE)
NOT_LISTED = {
    "model_config",
    "model_fields",
    "model_computed_fields",
    "model_extra",
    "model_fields_set",
}


def members(text: str) -> list[str]:
    """Return the names in a cell: those before brackets, or between commas."""
    return re.findall(r"(\w+)(?:\([^)]*\))?(?:, |$)", re.sub(r"\([^)]*\)", "", text))


def public(name: str) -> set[str]:
    """Return a class's public members, its fields included."""
    kind = getattr(batchata_tasks, name)
    fields = (
        {one.name for one in dataclasses.fields(kind)}
        if dataclasses.is_dataclass(kind)
        else set(getattr(kind, "model_fields", ()))
    )
    inherited = {
        attribute
        for base in kind.__mro__[1:]
        if base.__module__.startswith("pydantic")
        for attribute in vars(base)
    }
    return {
        attribute for attribute in vars(kind) if not attribute.startswith("_")
    } - inherited - NOT_LISTED | fields


def sources() -> dict[str, str]:
    """Return the text of every test function."""
    functions: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        functions |= {
            node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno])
            for node in ast.parse(text).body
            if isinstance(node, ast.FunctionDef)
        }
    return functions


def test_no_class_is_left_out() -> None:
    """The table lists all that the package exports.

    Errors, outcomes, specs, functions and the two adapters, which are Providers, are left out.
    """
    elsewhere = {
        "AnthropicProvider",
        "OpenAIProvider",
        "BatchataError",
        "InputError",
        "SpecError",
        "EnrichmentSpec",
        "Outcome",
        *("enrich", "forget", "revalidate"),  # docs/frames.md
        "map_citations",  # docs/citations.md
    }
    assert set(batchata_tasks.__all__) - elsewhere == {name for name, _, _ in ROWS}


@pytest.mark.parametrize("name", sorted({name for name, _, _ in ROWS}))
def test_no_member_is_left_out(name: str) -> None:
    """The page lists every public member of a class, but for the conveniences named here."""
    listed = {member for kind, cell, _ in ROWS if kind == name for member in members(cell)}
    beside = {
        "Job": {"provider", "endpoint", "params", "check", "destination", "request", "turns"},
        "BatchRun": {"show", "dry", "done", "elapsed"},
        "StateManager": {
            *("jobs", "name_run", "file", "check", "response_models", "folder", "complete"),
        },
    }
    assert public(name) - beside.get(name, set()) - listed == set()


def test_the_named_tests_use_the_members() -> None:
    """Each row names an existing test that uses the first of its members, or creates the class."""
    tests = sources()
    for name, cell, test in ROWS:
        assert test in tests, test
        used = [
            member for member in (*members(cell), name) if re.search(rf"\b{member}\b", tests[test])
        ]
        assert used, f"{test} uses none of {cell}"
