"""The digest of a response model's code changes with what may decide on an answer, and only so."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import create_model

from batchata_tasks.schema.model_code import code_digest

if TYPE_CHECKING:
    from pathlib import Path

RULES = """
LEAST = 3

def long_enough(value: str) -> str:
    if len(value) < LEAST:
        raise ValueError("too short")
    return value

def unused() -> int:
    return 1
"""
MODELS = '''
from typing import Annotated
from pydantic import AfterValidator, BaseModel
from rules_of_a_team import long_enough

class Part(BaseModel):
    name: Annotated[str, AfterValidator(long_enough)]

class Label(BaseModel):
    """What it is."""

    parts: "list[Part]"  # of which there may be none

class Other(BaseModel):
    score: int
'''


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that gives the digest of Label under other code."""
    names = ("rules_of_a_team", "models_of_a_team")

    def load(name: str, text: str) -> Any:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        spec = spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def of(old: str = "", new: str = "") -> str | None:
        load(names[0], RULES.replace(old, new))
        return code_digest(load(names[1], MODELS.replace(old, new)).Label)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    of.load = load
    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LEAST = 3", "LEAST = 4"),
        ("len(value) < LEAST", "len(value) <= LEAST"),
        ("name: Annotated", "title: Annotated"),
        ("list[Part]", "list[Part] | None"),
    ],
)
def test_what_decides_on_an_answer_changes_it(digest: Any, old: str, new: str) -> None:
    """Fields, nested models, validators of other files, and what these use."""
    assert digest() is not None
    assert digest(old, new) != digest()


IMPORT = "from rules_of_a_team import long_enough"
ALIASED = """
import rules_of_a_team

def long_enough(value: str) -> str:
    return rules_of_a_team.long_enough(value)
"""


@pytest.mark.parametrize(
    "written",
    [
        f"try:\n    {IMPORT}\nexcept ImportError:\n    pass",
        f"try:\n    from ...team.rules import long_enough\nexcept ImportError:\n    {IMPORT}",
        f"if True:\n    {IMPORT}",
        "from rules_of_a_team import *",
        ALIASED,
        f"def long_enough(value: str) -> str:\n    {IMPORT} as found\n    return found(value)",
    ],
)
def test_a_rule_counts_however_it_is_imported(digest: Any, written: str) -> None:
    """Under a condition, with all others, or where it is used."""
    before = digest(IMPORT, written)
    assert before is not None
    load = digest.load
    load("rules_of_a_team", RULES.replace("LEAST = 3", "LEAST = 4"))
    changed = code_digest(load("models_of_a_team", MODELS.replace(IMPORT, written)).Label)
    assert changed not in (None, before)


@pytest.mark.parametrize(
    "filled",
    ["KNOWN.add({})", "KNOWN[{}] = 1", "for n in ({},):\n    KNOWN.add(n)", "KNOWN.x = {}"],
)
def test_what_fills_a_constant_counts(digest: Any, filled: str) -> None:
    """A set of words may be filled after it was made."""
    made = "class Words(dict):\n    add = dict.get\n\nKNOWN = Words()\n"

    def of(value: int) -> str | None:
        rules = RULES.replace("LEAST = 3", made + filled.format(value))
        digest.load("rules_of_a_team", rules.replace("< LEAST", "< len(KNOWN)"))
        return code_digest(digest.load("models_of_a_team", MODELS).Label)

    assert of(1) == of(1) is not None
    assert of(1) != of(2)


GENERIC = """
from typing import Generic, TypeVar
from pydantic import BaseModel
from rules_of_a_team import Item

Of = TypeVar("Of")

class Answer(BaseModel, Generic[Of]):
    items: list[Of]
    least: int = 1

Label = Answer[list[Item]]
"""
ITEM = "from pydantic import BaseModel\n\nclass Item(BaseModel):\n    size: int = 1\n"


def test_a_generic_model_counts_with_what_it_is_made_of(digest: Any) -> None:
    """The class itself has no statement of its own."""

    def of(old: str = "", new: str = "") -> str | None:
        digest.load("rules_of_a_team", ITEM.replace(old, new))
        return code_digest(digest.load("models_of_a_team", GENERIC.replace(old, new)).Label)

    others = {of(f"{name}: int = 1", f"{name}: int = 2") for name in ("size", "least")}
    assert of() == of() is not None
    assert len({of(), *others}) == 3


@pytest.mark.parametrize(
    "odd",
    [
        f"LEAST = 0x{'f' * 6000}",  # more digits than Python writes
        "import sys\nclass Odd:\n    long_enough = long_enough\nsys.modules[__name__] = Odd",
        "__file__ = 7",
    ],
)
def test_odd_code_ends_no_run(digest: Any, odd: str) -> None:
    """Python takes it; that it cannot be compared is no error."""
    written = "return 1", f"return 1\n\n{odd}"
    assert digest(*written) == digest(*written)


def test_code_that_is_too_deep_to_compare_ends_no_run(digest: Any) -> None:
    """An expression of hundreds of parts, which Python's own tools cannot write."""
    deep = f"LEAST = {' + '.join(['1'] * 900)}"
    assert digest("LEAST = 3", deep) == digest("LEAST = 3", deep)


BASE = """
from typing import Generic, TypeVar
from pydantic import BaseModel, create_model, field_validator
from rules_of_a_team import long_enough, made

T = TypeVar("T")

class Base(BaseModel, Generic[T]):
    name: T
    _long_enough = field_validator("name")(long_enough)

def wrapped(model):
    class Wrapped(model):
        pass
    return Wrapped
"""
FACTORY = """
from pydantic import BaseModel, Field

def made(least):
    class Made(BaseModel):
        name: str = Field(min_length=least)
    return Made
"""


@pytest.mark.parametrize(
    "label",
    [
        "Label = create_model('OtherName', __base__=Base, score=(int, ...))",
        "Label = create_model('Label', __base__=Base, __module__='elsewhere')",
        "Label = create_model('Other', n=(str, ...), __validators__={'v': Base._long_enough})",
        "Label = Base[str]",
        "LEAST = 3\n@wrapped\nclass Label(BaseModel):\n    name: str = Field(min_length=LEAST)",
        "LEAST = 3\nLabel = made(LEAST)",
        "Label = made(least=3)",
    ],
)
def test_a_class_that_was_made_counts_with_what_it_was_made_of(digest: Any, label: str) -> None:
    """By a call, a decorator or a generic model, whatever name it has then."""

    def of(least: int) -> str | None:
        digest.load("rules_of_a_team", f"{RULES}{FACTORY}".replace("LEAST = 3", f"LEAST = {least}"))
        text = f"{BASE}from pydantic import Field\n{label}"
        for written in ("LEAST = 3", "least=3"):
            text = text.replace(written, written.replace("3", str(least)))
        return code_digest(digest.load("models_of_a_team", text).Label)

    assert of(3) == of(3) is not None
    assert of(3) != of(4)


def test_a_loop_over_models_is_no_part_of_them(digest: Any) -> None:
    """A script may bind a model to names of its own."""

    def of(line: str) -> str | None:
        digest.load("rules_of_a_team", RULES)
        return code_digest(digest.load("models_of_a_team", f"{MODELS}\n{line}").Label)

    assert (
        of("for one in (Label,):\n    print()")
        == of("for one in (Label,):\n    print(1)")
        == of("")
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # of which there may be none", ""),
        ('"""What it is."""', '"""What it may be."""'),
        ("score: int", "score: float"),
        ("return 1", "return 2"),
    ],
)
def test_nothing_else_does(digest: Any, old: str, new: str) -> None:
    """Remarks, docstrings, other models, and functions that the model does not use."""
    assert digest(old, new) == digest()


def test_it_warns_of_nothing(digest: Any) -> None:
    """Who imports odd code is told of it by Python, and needs no second warning."""
    with pytest.warns(SyntaxWarning if sys.version_info >= (3, 12) else DeprecationWarning) as told:
        assert digest('"""What it is."""', 'odd: str = "\\d"') is not None
    assert len(told) == 1


def test_a_model_without_code_has_no_digest() -> None:
    """One that is made by a call, say: nobody could tell whether it changed."""
    assert code_digest(create_model("Made", label=(str, ...))) is None
