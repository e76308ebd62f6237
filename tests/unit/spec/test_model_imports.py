"""What the file of a response model may import: its own helpers, as they are now."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from pydantic import ValidationError

from batchata_tasks.schema.model_code import code_digest
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.spec.references import load_model
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from types import ModuleType

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


def takes(root: Path, models: str, stars: int, *, anew: bool = False) -> bool:
    """Whether the model, loaded once more, takes an answer."""
    try:
        load_model(f"{models}:Topic", [root], anew=anew)(stars=stars)
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


@pytest.mark.parametrize(
    ("rules", "imported"),
    [
        ("shared_rules.py", "from shared_rules import at_most"),
        ("shared/rules.py", "from shared.rules import at_most"),
        ("shared/rules.py", "from shared import rules\nat_most = rules.at_most"),
    ],
)
def test_anew_is_also_what_was_imported_for_another_purpose(
    root: Path, monkeypatch: pytest.MonkeyPatch, rules: str, imported: str
) -> None:
    """A process that outlives a run may have its code on Python's path, and have imported it.

    A link in that path hides nothing, and what only looks like a module does no harm.
    """
    (root / "linked").symlink_to(root)
    monkeypatch.syspath_prepend(str(root / "linked"))
    monkeypatch.setitem(sys.modules, "no_module_at_all", cast("ModuleType", "a text"))
    write(root / "team.py", MODEL.format(imported=imported))
    write(root / rules, RULES.format(most=5))
    import_module(".".join(Path(rules).with_suffix("").parts))
    for most in (5, 4):
        write(root / rules, RULES.format(most=most))
        taken = [takes(root, "team.py", most + more, anew=True) for more in (0, 1)]
        assert taken == [True, False]
    for name in [name for name in sys.modules if name.startswith("shared")]:
        sys.modules.pop(name)


def test_anew_leaves_alone_what_the_model_does_not_import(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other code of the process goes on with its modules, and this package with its own."""
    monkeypatch.syspath_prepend(str(root))
    write(root / "rules.py", RULES.format(most=5))
    write(root / "team.py", MODEL.format(imported="from rules import at_most"))
    write(root / "program" / "state.py", "")
    state = import_module("program.state")
    before = {name: one for name, one in sys.modules.items() if name != "rules"}
    load_model("team.py:Topic", [root, ROOT], anew=True)
    assert {name: sys.modules.get(name) for name in before} == before
    assert sys.modules["program"].state is state


def test_the_digest_of_code_is_of_what_was_loaded(root: Path) -> None:
    """Also after the file has changed: what was loaded goes on as it is."""
    write(root / "team.py", MODEL.format(imported=LATE))
    loaded = ResponseSchema.from_model(load_model("team.py:Topic", [root]), "response_model")
    code = loaded.code
    write(root / "team.py", MODEL.format(imported=f"{LATE}    # changed\n    return 1\n"))
    assert loaded.code == code is not None
    anew = ResponseSchema.from_model(load_model("team.py:Topic", [root]), "response_model")
    assert anew.code != code


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
