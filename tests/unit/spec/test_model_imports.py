"""What the file of a response model may import: its own helpers, as they are now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from batchata_tasks.schema.model_code import code_digest
from batchata_tasks.spec.references import load_model

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
MOST = {most}

def at_most(value: int) -> int:
    if value > MOST:
        raise ValueError("too many")
    return value
"""
MODEL = """
from typing import Annotated
from pydantic import AfterValidator, BaseModel

{imported}

class Topic(BaseModel):
    stars: Annotated[int, AfterValidator(at_most)]
"""
LATE = """
def at_most(value):
    from late_rules import at_most as check
    return check(value)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder from which models load; what is added to Python's path for it ends with it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Python takes a compiled file for that of another text of its size from the same second
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def takes(root: Path, models: str, stars: int) -> bool:
    """Whether the model, loaded anew, takes an answer."""
    try:
        load_model(f"{models}:Topic", [root])(stars=stars)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("models", "rules", "imported"),
    [
        ("team.py", "team_rules.py", "from team_rules import at_most"),
        ("topics/team.py", "topics/team_rules.py", "from team_rules import at_most"),
        ("topics/team.py", "team_rules/stars.py", "from team_rules.stars import at_most"),
    ],
)
def test_helpers_are_found_beside_the_model_and_in_the_roots(
    root: Path, models: str, rules: str, imported: str
) -> None:
    """Each time the model is loaded, as they are then, also within one process."""
    write(root / models, MODEL.format(imported=imported))
    for most in (5, 4):
        write(root / rules, RULES.format(most=most))
        assert (takes(root, models, most), takes(root, models, most + 1)) == (True, False)


def test_a_validator_may_import_when_it_is_called(root: Path) -> None:
    """The folders stay on Python's path after the model was loaded."""
    write(root / "team.py", MODEL.format(imported=LATE))
    write(root / "late_rules.py", RULES.format(most=5))
    assert (takes(root, "team.py", 5), takes(root, "team.py", 6)) == (True, False)


LINKED = """
from __future__ import annotations
from pydantic import BaseModel

class Topic(BaseModel):
    next: Link | None = None

def define():
    global Link

    class Link(BaseModel):
        topic: str
"""


def test_another_model_takes_nothing_from_one_that_was_loaded_before(root: Path) -> None:
    """A process may run two specs: names that a class lacks yet, and its code, are found still."""
    write(root / "a" / "models.py", LINKED)
    write(root / "b" / "models.py", LINKED)
    first = load_model("a/models.py:Topic", [root])
    code = code_digest(first)
    load_model("b/models.py:Topic", [root])
    assert code_digest(first) == code is not None
    vars(sys.modules[first.__module__])["define"]()
    assert first.model_rebuild()


def test_a_file_beside_the_model_hides_no_package(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder may have a file that is named like a module which Python imports later."""
    monkeypatch.delitem(sys.modules, "stringprep", raising=False)
    write(root / "stringprep.py", "raise SystemExit")
    write(root / "rules.py", "from stringprep import in_table_a1 as at_most")
    write(root / "team.py", MODEL.format(imported="from rules import at_most"))
    assert load_model("team.py:Topic", [root]).__name__ == "Topic"


def test_packages_of_an_environment_in_the_folder_are_imported_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may not be imported twice, as NumPy says of itself."""
    monkeypatch.setattr("batchata_tasks.common.installed._PLACES", [root / ".venv"])
    monkeypatch.syspath_prepend(str(root / ".venv"))
    write(root / ".venv" / "a_package.py", RULES.format(most=5))
    write(root / "team.py", MODEL.format(imported="from a_package import at_most"))
    assert takes(root, "team.py", 5)
    package = sys.modules["a_package"]
    assert takes(root, "team.py", 5)
    assert sys.modules.pop("a_package") is package


def test_a_validator_may_import_after_another_model_was_loaded(root: Path) -> None:
    """Of two specs in one process, neither takes the other's folder from Python's path."""
    for place in ("a", "b"):
        write(root / place / "models.py", MODEL.format(imported=LATE))
        write(root / place / "late_rules.py", RULES.format(most=5 if place == "a" else 4))
    first = load_model("a/models.py:Topic", [root])
    (root / "b" / "late_rules.py").unlink()
    load_model("b/models.py:Topic", [root])
    assert first(stars=5)
