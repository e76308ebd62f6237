"""Structured output, type by type: what is stated by hand is what is sent and what lands.

docs/structured-output.md shows the same.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anthropic
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openai.lib import _pydantic as openai_schemas
from pydantic import create_model

from batchata_tasks.common.errors import SpecError
from batchata_tasks.emulator import Emulator, answer_text
from batchata_tasks.emulator.anthropic.schemas import schema_problem as anthropic_problem
from batchata_tasks.emulator.openai.schemas import schema_problem as openai_problem
from batchata_tasks.providers import provider_type
from batchata_tasks.schema.reader import read_root
from batchata_tasks.schema.response import ResponseSchema
from tests.support.structured.cases import ACCEPTED, CASES, PREAMBLE, REFUSED, answer_class
from tests.support.structured.page import PAGE, page
from tests.support.table import MODELS, Table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.structured.cases import Case

FIELDS = [case for case in ACCEPTED if not case.whole]
CLASSES = [case for case in ACCEPTED if case.whole]
BOTH = pytest.mark.parametrize("provider", MODELS)


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.what.replace(" ", "-"))


class Landed(NamedTuple):
    """The results of one run with all accepted fields in one class."""

    rows: list[dict[str, Any]]
    schema: pa.Schema
    bodies: dict[str, dict[str, Any]]
    contents: dict[str, Any]
    in_capitals: set[str]


def asked(provider: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the schema in a request body; OpenAI's has to be strict."""
    if provider == "anthropic":
        assert body["output_config"]["format"]["type"] == "json_schema"
        return body["output_config"]["format"]["schema"]
    form = body["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    return form["json_schema"]["schema"]


def run(table: Table, text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run with the class Answer of some code, loaded from a file as a spec names it."""
    monkeypatch.setenv("BATCHATA_CODE_ROOTS", str(table.folder))
    path = table.folder / "answer.py"
    path.write_text(text, encoding="utf-8")
    return table.run(
        response_schema=None, response_model=f"{path}:Answer", max_tokens=4000, columns=[]
    )


@pytest.fixture(scope="module", params=MODELS)
def landed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Landed]:
    """Return a provider and the 12 rows that all accepted fields became there.

    Three answers have their enums in capitals.
    """
    folder, provider = tmp_path_factory.mktemp(request.param), request.param
    with Emulator(anonymous=True) as emulator, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **emulator.env(),
            "BATCHATA_POLL_INTERVAL": "0.05",
            "BATCHATA_LEDGER_URL": f"sqlite:///{folder / 'ledger.db'}",
        }.items():
            patch.setenv(name, value)
        emulator.control.faults(kind="request_other_case", contains="row 1")
        table = Table(folder, emulator, provider, rows=12)
        assert run(table, f"{PREAMBLE}\n\n{answer_class(FIELDS)}\n", patch).outcomes == {
            "succeeded": 12
        }
        schema = pq.read_schema(next((table.output / "data").iterdir()))
        return provider, Landed(
            table.rows(), schema, table.bodies(), table.ledger()["contents"], {"k1", "k10", "k11"}
        )


# --- accepted -------------------------------------------------------------------------------------


def _spelt(*options: str) -> Callable[[Any], Any]:
    return lambda value: (
        value and next(option for option in options if option.lower() == value.lower())
    )


def _place(value: Any) -> Any:
    return value and {**value, "since": value["since"] and date.fromisoformat(value["since"])}


AREA = _spelt("electronics", "Home & Garden")
# the landed value of an answer's value, if it is another
LANDS: dict[str, Callable[[Any], Any]] = {
    "day": date.fromisoformat,
    "moment": datetime.fromisoformat,
    "at": lambda value: time.fromisoformat(value).replace(tzinfo=None),
    "price": Decimal,
    "medium": _spelt("book", "Film"),
    "choice": _spelt("Yes", "No"),
    "area": AREA,
    "areas": lambda values: [AREA(value) for value in values],
    "place": _place,
    "origin": _place,
    "places": lambda values: [_place(value) for value in values],
    "loud": str.upper,
    "quiet": str.lower,
}


@each(FIELDS)
def test_a_field_is_sent_as_stated_and_its_answers_land_typed(
    landed: tuple[str, Landed], case: Case
) -> None:
    """The schema on the wire and the column's type are those stated by hand.

    Each row has the value of its own answer.
    """
    provider, result = landed
    for body in result.bodies.values():
        assert asked(provider, body)["properties"][case.name] == case.sent
    assert str(result.schema.field(case.name).type) == case.column.replace("item:", "element:")
    for row in result.rows:
        assert row[case.name] == LANDS.get(case.name, lambda value: value)(
            json.loads(row["_response"])[case.name]
        )
    assert case.outcome(provider) == case.stated(provider)


def test_the_provider_got_the_requests_that_were_looked_at(landed: tuple[str, Landed]) -> None:
    """Each request is, byte for byte of its content, one that the provider accepted and billed.

    Its answer was made from that schema.
    """
    provider, result = landed
    for body in result.bodies.values():
        content = blake2b(
            orjson.dumps(body, option=orjson.OPT_SORT_KEYS), digest_size=16
        ).hexdigest()
        assert result.contents[content]["billed"] == 1
        schema = asked(provider, body)
        assert schema["required"] == list(schema["properties"])
        assert schema["additionalProperties"] is False
    for row in result.rows:
        if row["id"] not in result.in_capitals:
            assert row["_response"] == answer_text(provider, result.bodies[row["_custom_id"]])


@pytest.mark.parametrize("name", ["area", "areas", "medium", "choice"])
def test_enums_in_another_case_land_as_the_class_spells_them(
    landed: tuple[str, Landed], name: str
) -> None:
    """An answer of "ELECTRONICS" is electronics.

    That also holds for a Literal, in a list and if it may be null. `_response` keeps what the model
    wrote.
    """
    _, result = landed
    said = [
        json.loads(row["_response"])[name] for row in result.rows if row["id"] in result.in_capitals
    ]
    texts = [
        text for value in said for text in (value if isinstance(value, list) else [value]) if text
    ]
    assert texts
    assert all(text == text.upper() for text in texts)
    kept = {
        text
        for row in result.rows
        if row[name]
        for text in (row[name] if isinstance(row[name], list) else [row[name]])
    }
    assert kept <= {"electronics", "Home & Garden", "book", "Film", "Yes", "No"}


@pytest.mark.parametrize("name", ["note", "rank", "choice", "origin"])
def test_what_is_optional_may_be_null(landed: tuple[str, Landed], name: str) -> None:
    """Some answers leave it null, others do not; both land."""
    _, result = landed
    assert {row[name] is None for row in result.rows} == {True, False}


@BOTH
@each([*CLASSES, *(case for case in REFUSED if case.sent)])
def test_a_class_is_sent_as_stated_and_its_answers_land(
    provider: str, case: Case, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class is sent as stated: docstrings reach the model, computed and extra fields do not.

    A RootModel is what it wraps, and limits of one provider bind it alone.
    """
    table = Table(tmp_path, emulator, provider, rows=2)
    sent, told = case.stated(provider)
    assert case.outcome(provider) == (sent, told)
    if sent is None:
        with pytest.raises(SpecError) as caught:
            run(table, case.text(), monkeypatch)
        assert str(caught.value) == told
        assert table.ledger()["batches_accepted"] == 0
        return
    assert run(table, case.text(), monkeypatch).outcomes == {"succeeded": 2}
    assert [asked(provider, body) for body in table.bodies().values()] == [case.sent] * 2
    stored = pq.read_schema(next((table.output / "data").iterdir()))
    assert (
        ", ".join(f"{name}: {stored.field(name).type}" for name in case.sent["properties"])
        == case.column
    )
    for row in table.rows():
        answer = json.loads(row["_response"])
        assert {name: row[name] for name in answer} == answer


# --- refused --------------------------------------------------------------------------------------


@BOTH
@each([case for case in REFUSED if not case.sent])
def test_a_type_that_no_batch_can_ask_for_is_refused_in_a_sentence(
    provider: str, case: Case, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence names the field, before anything is sent."""
    table = Table(tmp_path, emulator, provider, rows=2)
    with pytest.raises(SpecError) as caught:
        run(table, case.text(), monkeypatch)
    assert str(caught.value) == f"response_model: {case.refused}"
    assert case.whole or case.name in case.refused
    assert table.ledger()["batches_accepted"] == 0
    assert emulator.control.ledger()["openai"]["files"] == []


def test_a_map_would_be_emptied_in_silence() -> None:
    """Maps are refused because Anthropic's helper sends them as an object without fields.

    The API accepts that, and each answer would be {}.
    """
    case = next(case for case in REFUSED if case.what == "map")
    emptied = anthropic.transform_schema(case.model())
    assert emptied["properties"]["prices"] | {"title": ""} == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
        "title": "",
    }
    assert anthropic_problem(orjson.dumps(emptied)) is None


# --- the providers' own measures ------------------------------------------------------------------


def _with_types(schema: Any) -> Any:
    """Return a schema as Anthropic's helper leaves it: enums need no type there."""
    if isinstance(schema, list):
        return [_with_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _with_types(item)
        for key, item in schema.items()
        if not (key == "type" and "enum" in schema)
    }


@each([*ACCEPTED])
def test_both_sdks_find_nothing_to_change(case: Case) -> None:
    """The SDKs' own helpers, which bring schemas into their APIs' subsets, change nothing in ours.

    The emulator accepts them, too.
    """
    wire = ResponseSchema.from_model(case.model(), "response_model").wire
    assert anthropic.transform_schema(wire) == _with_types(wire)
    assert (
        openai_schemas._ensure_strict_json_schema(json.loads(json.dumps(wire)), path=(), root={})
        == wire
    )
    assert anthropic_problem(orjson.dumps(wire)) is None
    assert openai_problem(orjson.dumps(wire), strict=True) is None


def test_what_one_provider_refuses_is_refused_by_its_api_too() -> None:
    """The limits of one provider are its API's.

    The emulator refuses what the local check does, and accepts one less.
    """
    optionals, values = (
        next(case for case in REFUSED if case.what == what)
        for what in ("more than 16 optionals", "more than 1,000 values of enums")
    )
    assert "limit: 16" in (anthropic_problem(orjson.dumps(optionals.sent)) or "")
    assert openai_problem(orjson.dumps(optionals.sent), strict=True) is None
    assert "at most 1000 enum values" in (
        openai_problem(orjson.dumps(values.sent), strict=True) or ""
    )
    assert anthropic_problem(orjson.dumps(values.sent)) is None
    fewer = ResponseSchema.from_model(
        create_model("Answer", **dict.fromkeys("abcdefghijklmnop", (str | None, ...))),
        "response_model",
    )
    provider_type("anthropic").check_schema(fewer)
    assert anthropic_problem(orjson.dumps(fewer.wire)) is None
    smaller = ResponseSchema.from_model(
        create_model("Answer", n=(Literal[tuple(range(1000))], ...)), "response_model"
    )
    provider_type("openai").check_schema(smaller)
    assert openai_problem(orjson.dumps(smaller.wire), strict=True) is None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"n": Literal[tuple(f"{i:060}" for i in range(251))]},
            (
                "the field n is an enum of 15,060 characters, of which OpenAI takes 15,000 if "
                "there are more than 250 values"
            ),
        ),
        (
            {"a": Literal["x" * 60_000], "b": Literal["y" * 60_000]},
            (
                "the field b brings names and enums to 120,002 characters, "
                "of which OpenAI takes 120,000"
            ),
        ),
    ],
    ids=["large-enum", "characters"],
)
def test_long_enums_are_refused_for_openai(fields: dict[str, Any], sentence: str) -> None:
    """OpenAI limits the characters of enums; Anthropic publishes no such limit."""
    schema = ResponseSchema.from_model(
        create_model("Answer", **{name: (kind, ...) for name, kind in fields.items()}),
        "response_model",
    )
    provider_type("anthropic").check_schema(schema)
    with pytest.raises(SpecError) as caught:
        provider_type("openai").check_schema(schema)
    assert str(caught.value).startswith(f"response_model: {sentence}; ")


def test_more_fields_than_any_provider_takes_are_refused() -> None:
    """A model that refers to another ten times, on each of many levels, is refused at once.

    It is not written out first.
    """
    text = {"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]}
    levels: dict[str, Any] = {"L7": text}
    for level in range(7):
        levels[f"L{level}"] = {
            "type": "object",
            "properties": {f"p{i}": {"$ref": f"#/$defs/L{level + 1}"} for i in range(10)},
        }
    with pytest.raises(SpecError, match="brings the fields to more than 5,000"):
        ResponseSchema.from_json_schema({**levels["L0"], "$defs": levels}, "response_schema")


def test_lists_without_end_are_refused() -> None:
    """A list in a list in a list, thousands deep, is one sentence."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(SpecError, match="is nested more than 8 levels deep"):
        ResponseSchema.from_json_schema(
            {"type": "object", "properties": {"a": schema}}, "response_schema"
        )


# --- the page -------------------------------------------------------------------------------------


def test_the_page_is_what_the_code_does() -> None:
    """The committed page is what the code makes of the cases today."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_the_table_is_wide_enough() -> None:
    """At least 25 types are accepted and as many refused, with names of their own."""
    assert min(len(ACCEPTED), len(REFUSED)) >= 25
    assert len({case.what for case in CASES}) == len(CASES)


# --- what a ledger keeps --------------------------------------------------------------------------


@each([*ACCEPTED])
def test_a_kept_response_model_reads_back_whole(case: Case) -> None:
    """A stored model makes the same columns, canonical form and checks as the class."""
    schema = ResponseSchema.from_model(case.model(), "response_model")
    stored = json.loads(json.dumps(schema.stored))
    again = ResponseSchema.from_json_schema(stored, "response_model")
    assert (again.canonical, again.arrow) == (schema.canonical, schema.arrow)
    assert read_root(stored, "response_model", of_class=True) == schema.root


def test_the_ledger_keeps_the_response_model_whole(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dead run of another spec lands has the run's own columns and checks.

    They are not only those of the schema that was sent.
    """
    exact = next(case for case in ACCEPTED if case.what == "exact number")
    run(Table(tmp_path, emulator, "openai", rows=2), exact.text(), monkeypatch)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger:
        (stored,) = ledger.execute("select spec from runs").fetchone()
    again = ResponseSchema.from_json_schema(json.loads(stored)["schema"], "response_model")
    assert again.arrow == pa.schema([pa.field("price", pa.decimal128(12, 2))])
    assert again.parse('{"price": "-1"}')[0] is None
