"""The layout of the tests: each file has one place, and only helpers are imported."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the full names of the modules that a file imports, and of the members of them."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    members = {
        f"{'.' * node.level}{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return modules | members


def test_only_helpers_are_imported() -> None:
    """What a file imports of the tests is in tests/support: never another test, nor a conftest."""
    wrong = {
        (str(path.relative_to(TESTS)), name)
        for path in FILES
        for name in imports(path)
        if name.startswith(("tests.", ".", "test_", "conftest"))
        and not name.startswith("tests.support.")
    }
    assert wrong == set()


def test_every_file_has_its_place() -> None:
    """Tests are in unit or stories, everything that can be imported in support.

    tests/typed is for the type checker alone.
    """
    places = [(path.relative_to(TESTS).parts[0], path.stem) for path in FILES]
    tests = {folder for folder, name in places if name.startswith("test_")}
    helpers = {folder for folder, name in places if not name.startswith(("test_", "conftest"))}
    assert tests == {"unit", "stories"}
    assert helpers == {"support", "typed"}


def test_unit_tests_mirror_the_packages() -> None:
    """Each folder of tests/unit has the name of a package of batchata_tasks."""
    folders = {path.parent.name for path in (TESTS / "unit").glob("*/*.py")}
    packages = {path.parent.name for path in (ROOT / "batchata_tasks").glob("*/__init__.py")}
    assert folders - packages == set()
