"""Night after night the source comes in other types, and the dataset holds what it must."""

from __future__ import annotations

import json
import tempfile
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from batchata_tasks.common.errors import InputError
from tests.support.nights import Nights

if TYPE_CHECKING:
    from batchata_tasks.emulator import Emulator

KEYS = st.lists(st.integers(0, 7), unique=True, min_size=1, max_size=6)
# of each kind: the type in a Parquet file, the values, and the family that a dataset holds it in
PARQUET: dict[str, tuple[pa.DataType, Any, str]] = {
    "int8": (pa.int8(), st.integers(-128, 127), "integer"),
    "uint32": (pa.uint32(), st.integers(0, 2**32 - 1), "integer"),
    "int64": (pa.int64(), st.integers(-(2**50), 2**50), "integer"),
    "double": (pa.float64(), st.integers(-99, 99).map(lambda n: n / 4), "float"),
    "text": (pa.string(), st.sampled_from(["", "7", "01067", "2026-01-01", "é"]), "text"),
    "view": (pa.string_view(), st.sampled_from(["a", "7"]), "text"),
    "date": (pa.date32(), st.dates(date(1970, 1, 1), date(2100, 1, 1)), "date"),
    "list": (pa.list_(pa.string()), st.lists(st.sampled_from(["x", "y"]), max_size=2), "list"),
    "nothing": (pa.null(), st.none(), "nothing"),
}
OBJECTS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 3) | st.booleans(), max_size=3)
LINES: dict[str, tuple[Any, str]] = {
    "number": (st.integers(-(2**50), 2**50), "integer"),
    "fraction": (st.integers(-99, 99).map(lambda n: n / 4), "float"),
    "words": (st.sampled_from(["", "7", "x"]), "text"),
    "object": (OBJECTS, "json"),
    "nulls": (st.none(), "nothing"),
}


def held_together(declared: str, tonight: str, values: list[Any]) -> str | None:
    """Return the family that holds both without loss; None if there is none.

    `values` are tonight's. Written anew here, so that it can disagree with the program.
    """
    if declared == "nothing":
        return tonight
    if all(value is None for value in values) or declared == tonight:
        return declared
    if {declared, tonight} == {"integer", "float"}:
        whole = all(value is None or float(value).is_integer() for value in values)
        return "integer" if declared == "integer" and whole else "float"
    if declared == "text" and tonight in ("integer", "float", "date"):
        return "text"
    return "json" if (declared, tonight) == ("json", "list") else None


def spelled(value: Any, family: str) -> Any:
    """Return a value of tonight as a column of the family holds it."""
    if value is None or family in ("list", "date", "nothing"):
        return value
    if family == "json":
        return json.dumps(value, separators=(",", ":"))
    if family == "text" and isinstance(value, float) and value.is_integer():
        return {str(value), str(int(value))}  # either names it
    return str(value) if family == "text" else value


class Evolving(RuleBasedStateMachine):
    """A dataset beside a plain model of what it must hold."""

    emulator: Emulator

    @initialize()
    def begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.nights = Nights(Path(self._folder.name))
        self.family = "nothing"
        self.held: dict[int, Any] = {}
        self.asked: dict[int, Any] = {}

    def teardown(self) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    @rule(keys=KEYS, kind=st.sampled_from(sorted(PARQUET)), data=st.data(), wide=st.booleans())
    def parquet(self, keys: list[int], kind: str, data: st.DataObject, wide: bool) -> None:
        arrow, values, family = PARQUET[kind]
        column = data.draw(st.lists(st.none() | values, min_size=len(keys), max_size=len(keys)))
        asked = [data.draw(st.integers(0, 2)) for _ in keys]
        self.nights.source = self.nights.source.with_suffix(".parquet")
        self.nights.write(
            id=pa.array(keys, pa.int64() if wide else pa.int8()),
            v=pa.array(column, arrow),
            text=pa.array(asked, pa.int16()) if wide else pa.array(map(float, asked)),
        )
        self.night(keys, column, asked, family)

    @rule(keys=KEYS, kind=st.sampled_from(sorted(LINES)), data=st.data())
    def lines(self, keys: list[int], kind: str, data: st.DataObject) -> None:
        values, family = LINES[kind]
        column = data.draw(st.lists(st.none() | values, min_size=len(keys), max_size=len(keys)))
        asked = [data.draw(st.integers(0, 2)) for _ in keys]
        rows = zip(keys, column, asked, strict=True)
        self.nights.write_lines([{"id": i, "v": v, "text": a} for i, v, a in rows])
        known = any(value is not None for value in column)
        self.night(keys, column, asked, family if known else "nothing")

    def night(self, keys: list[int], column: list[Any], asked: list[int], family: str) -> None:
        """Run the night that was written, and hold the dataset to the model."""
        holds = held_together(self.family, family, column)
        before = self.nights.content() if self.held else {}
        if holds is None:
            sent = self.emulator.control.ledger()["anthropic"]["requests_accepted"]
            with pytest.raises(InputError, match="'v'"):
                self.nights.run_again()
            assert self.emulator.control.ledger()["anthropic"]["requests_accepted"] == sent
            assert self.nights.content() == before
            return
        new = {key for key, one in zip(keys, asked, strict=True) if self.asked.get(key) != one}
        assert self.nights.run_again() == len(new)
        if (self.family, holds) == ("integer", "float"):
            self.held = {key: None if v is None else float(v) for key, v in self.held.items()}
        self.family = holds
        self.asked |= dict(zip(keys, asked, strict=True))
        self.held |= {k: spelled(v, holds) for k, v in zip(keys, column, strict=True)}
        landed = self.nights.column("v")
        assert landed.keys() == self.held.keys()
        for key, value in self.held.items():
            expected = value if isinstance(value, set) else {repr(value), repr(_number(value))}
            found = landed[key] if isinstance(value, set) else repr(_number(landed[key]))
            assert found in expected


def _number(value: Any) -> Any:
    """Return a number as an integer if it is one: 1 and 1.0 are the same value."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.mark.parametrize(
    "examples", [6, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.nights])]
)
def test_whatever_types_come_the_dataset_holds_every_value(
    emulator: Emulator, examples: int
) -> None:
    """Nothing that landed changes or vanishes, refusals cost nothing, unchanged rows are not sent.

    Any series of nights, in Parquet and in JSON lines, with keys that come and go.
    """
    Evolving.emulator = emulator
    run_state_machine_as_test(
        Evolving,
        settings=settings(
            max_examples=examples,
            stateful_step_count=8,
            deadline=None,
            derandomize=True,
            phases=(Phase.generate,),  # each step is a run: shrinking would take minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
