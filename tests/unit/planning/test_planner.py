"""Planning: which rows are sent and why, and which are not. It sends nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.canonical import canonical, key_digest
from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.files import read_json
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.declared import DeclaredSchema
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.manifest import _batches, plan_bodies, read_plan
from batchata_tasks.planning.fingerprint import part
from batchata_tasks.planning.key_arrays import SentRow
from batchata_tasks.planning.packing import PlannedChunk
from batchata_tasks.planning.planner import Planner
from batchata_tasks.planning.prepare import prepare
from batchata_tasks.planning.summary import Options, PlanSummary
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.pricing.price_file import CustomPrices
from batchata_tasks.providers.anthropic.adapter import AnthropicAdapter
from batchata_tasks.providers.base import Adapter, Limits
from batchata_tasks.providers.openai.chat import OpenAIAdapter
from batchata_tasks.sources.source import BATCH_ROWS
from batchata_tasks.spec.loading import parse_spec
from batchata_tasks.types.ids import CUSTOM_ID_CHARS, row_id
from tests.support.built import fingerprint_of
from tests.support.chunks import planned_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from batchata_tasks.planning.table import PreparedTable
    from batchata_tasks.spec.enrichment import EnrichmentSpec

DATASET = "d" * 40
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = [
    {"id": "a", "text": "one", "note": "x"},
    {"id": "b", "text": "two", "note": "y"},
    {"id": "c", "text": "three", "note": "z"},
]


def plan_rows(folder: Path, name: str, start: int, stop: int) -> pa.Table:
    return pa.Table.from_batches(list(_batches(folder / f"{name}.arrow", start, stop)))


@cache
def adapter(kind: type[Adapter]) -> Adapter:
    """Return one adapter of a kind for all tests.

    Making its client takes longer than planning.
    """
    return kind()


class Small(AnthropicAdapter):
    """The Anthropic adapter with batches that a test can fill."""

    limits = Limits(requests=3, bytes=2_000)


@dataclass
class Planned:
    """The results of one planning pass."""

    table: PreparedTable
    planner: Planner
    spans: list[PlannedChunk]
    rows: list[dict[str, Any]]
    bodies: list[dict[str, Any]]
    local: list[dict[str, Any]]

    @property
    def summary(self) -> PlanSummary:
        return self.planner.summary

    @property
    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows]


@dataclass
class Bench:
    """A source, a spec over it and a dataset folder, in one temporary folder."""

    folder: Path
    provider: type[Adapter] = AnthropicAdapter
    spec: dict[str, Any] = field(default_factory=dict[str, Any])
    suffix: str = "csv"

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        path = self.folder / f"source.{self.suffix}"
        listed = list(rows)
        if self.suffix == "csv":
            names = list(listed[0])
            lines = [
                ",".join(names),
                *(",".join(f'"{row[name]}"' for name in names) for row in listed),
            ]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")

    def parsed(self, **values: Any) -> EnrichmentSpec:
        base = {
            "name": "n",
            "source": str(self.folder / f"source.{self.suffix}"),
            "key": "id",
            "model": "claude-haiku-5-5",
            "prompt": "{{ text }}",
            "output": str(self.folder),
            "columns": ["note"],
        }
        return parse_spec({**base, **self.spec, **values})

    def table(self, **values: Any) -> PreparedTable:
        spec = self.parsed(**values)
        return prepare(
            spec,
            dict.fromkeys(spec.destinations(), adapter(self.provider)),
            self.folder / "data",
            [self.folder],
            CustomPrices(),
        )

    def plan(
        self,
        options: Options | None = None,
        in_flight: Iterable[SentRow] = (),
        legacy: dict[str, pa.DataType] | None = None,
        **values: Any,
    ) -> Planned:
        table = self.table(**values)
        plan = self.folder / "run"
        planner = Planner(table, plan, DATASET, options or Options(), legacy=legacy or {})
        spans = planner.run(in_flight)
        count = spans[-1].stop if spans else 0
        rows = plan_rows(plan, "plan", 0, count).to_pylist() if count else []
        chunk = planned_chunk("c", "r", "d", range(count))
        bodies = [json.loads(body) for _, body in plan_bodies(plan, chunk)] if count else []
        too_large = planner.summary.too_large
        local = plan_rows(plan, "local", 0, too_large).to_pylist() if too_large else []
        assert sorted(path.name for path in plan.iterdir()) == [
            "local.arrow",
            "local.bodies.jsonl",
            "plan.arrow",
            "plan.bodies.jsonl",
        ]
        return Planned(table, planner, spans, rows, bodies, local)

    def land(
        self,
        rows: Iterable[dict[str, Any]],
        part: str = "p1",
        using: dict[str, Any] | None = None,
        **values: Any,
    ) -> None:
        """Write rows into the dataset as a run would have.

        The spec is as it is but for `using`; `values` are metadata.
        """
        table = self.table(**(using or {}))
        schema, landed = table.dataset.schema, []
        for row in rows:
            facts = {
                "response": "answer",
                "_status": "succeeded",
                "_attempts": 1,
                "_input_tokens": 10,
                "_output_tokens": 5,
                "_cache_read_tokens": 2,
                "_cost_usd": Decimal("0.5"),
                "_fingerprint": fingerprint_of(table.builder, row),
                "_enriched_at": LONG_AGO,
                "_run_id": "r",
            }
            landed.append(
                {
                    **{name: row[name] for name in table.spec.carried},
                    **facts,
                    **{f"_{name}": value for name, value in values.items()},
                }
            )
        (self.folder / "data").mkdir(exist_ok=True)
        pq.write_table(
            pa.Table.from_pylist(landed, schema=schema), self.folder / "data" / f"{part}.parquet"
        )


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench with three rows and nothing landed."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-none")
    made = Bench(tmp_path)
    made.write(ROWS)
    return made


def digest_of(*key: object) -> bytes:
    return key_digest(canonical(list(key)))


# --- the first plan -------------------------------------------------------------------------------


def test_a_first_plan_sends_every_row(bench: Bench) -> None:
    """If nothing has landed, all rows are new, in the source's order.

    Their ids and bodies follow from their content.
    """
    plan = bench.plan(system="Be brief.", max_tokens=64, cost_limit_usd=5)
    assert plan.summary.reasons == {"new": 3}
    assert (plan.summary.source_rows, plan.summary.requests, plan.summary.batches) == (3, 3, 1)
    assert plan.ids == ["a", "b", "c"]
    assert [row["note"] for row in plan.rows] == ["x", "y", "z"]
    for row, body, source in zip(plan.rows, plan.bodies, ROWS, strict=True):
        assert row["_fingerprint"] == fingerprint_of(plan.table.builder, source)
        assert row["_row_id"] == row_id(DATASET, canonical([source["id"]]), row["_fingerprint"])
        assert body["messages"] == [{"role": "user", "content": source["text"]}]
        assert (body["system"], body["max_tokens"], body["model"]) == (
            "Be brief.",
            64,
            "claude-haiku-5-5",
        )
        assert (row["_error"], row["_replaces"], row["_prior_attempts"], row["_replaced_cost"]) == (
            None,
            None,
            0,
            0,
        )


def test_bounds_and_bytes_are_the_sums_of_the_rows(bench: Bench) -> None:
    """The bound is the most that its rows can cost, the bytes their size in the request file."""
    plan = bench.plan()
    rates = published_rates("anthropic", "claude-haiku-5-5")
    assert rates is not None
    (span,) = plan.spans
    for row, body in zip(plan.rows, plan.bodies, strict=True):
        size = len(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode())
        assert row["_bytes"] == AnthropicAdapter.framing.size(CUSTOM_ID_CHARS, b"x" * size)
        assert row["_bound"] >= rates.bound(size, 1024, cache_writes=False)
    assert span == PlannedChunk(
        0, 3, sum(row["_bytes"] for row in plan.rows), sum(row["_bound"] for row in plan.rows)
    )
    assert plan.summary.bound == span.bound


def test_an_unpriced_model_has_no_bound(bench: Bench) -> None:
    """An unknown price is reported as unknown, never as free."""
    assert bench.plan(model="claude-unheard-of-9").summary.bound is None


def test_a_plan_is_the_same_when_made_again(bench: Bench) -> None:
    """The same source and dataset give the same plan, byte for byte.

    So a crashed run carries on with the same ids.
    """
    files = ("plan.arrow", "plan.bodies.jsonl", "local.arrow")
    first, again = [
        (bench.plan(), [(bench.folder / "run" / name).read_bytes() for name in files])[1]
        for _ in range(2)
    ]
    assert first == again


def test_an_empty_source_plans_nothing(bench: Bench) -> None:
    """A table of no rows is an empty plan, not an error."""
    (bench.folder / "source.csv").write_text("id,text,note\n")
    plan = bench.plan()
    assert (plan.spans, plan.summary.source_rows, plan.summary.bound, plan.summary.reasons) == (
        [],
        0,
        0,
        {},
    )


def test_progress_is_told_by_source_rows(bench: Bench) -> None:
    """Progress is reported in source rows."""
    told: list[int] = []
    bench.write({"id": str(n), "text": "t", "note": "n"} for n in range(BATCH_ROWS + 1))
    Planner(bench.table(), bench.folder / "run", DATASET, Options(), told.append).run()
    assert told[-1] == BATCH_ROWS + 1
    assert told == sorted(told)


# --- reasons --------------------------------------------------------------------------------------


def test_landed_rows_are_not_sent_again(bench: Bench) -> None:
    """A second run of an unchanged spec over an unchanged source sends nothing."""
    bench.land(ROWS)
    plan = bench.plan()
    assert (plan.spans, plan.summary.up_to_date, plan.summary.reasons, plan.summary.bound) == (
        [],
        3,
        {},
        0,
    )


CHANGES: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": "Label: {{ text }}"},
    "model": {"max_tokens": 7},
    "schema": {
        "response_schema": {
            "type": "object",
            "properties": {"label": {"type": "string"}},
            "required": ["label"],
        }
    },
}


@pytest.mark.parametrize("reason", CHANGES)
@pytest.mark.parametrize("asked", [True, False])
def test_a_changed_spec_sends_every_row_for_that_reason(
    bench: Bench, reason: str, asked: bool
) -> None:
    """A changed prompt, cap, model or schema is named as the reason.

    If `rerun_on` does not name it, the rows stay.
    """
    bench.land(ROWS)
    others = [
        name for name in ("new", "input", "prompt", "model", "schema", "failed") if name != reason
    ]
    plan = bench.plan(**CHANGES[reason], rerun_on=[*others, *([reason] if asked else [])])
    assert plan.summary.reasons == ({reason: 3} if asked else {})
    assert plan.summary.not_asked == (0 if asked else 3)
    if asked:
        assert [
            (row["_replaces"], row["_prior_attempts"], row["_replaced_cost"]) for row in plan.rows
        ] == [("p1.parquet", 0, 5 * 10**11)] * 3


@pytest.mark.parametrize("asked", [True, False])
def test_a_changed_input_sends_that_row_alone(bench: Bench, asked: bool) -> None:
    """A changed cell that a template reads sends that row; new keys have another reason."""
    bench.land(ROWS)
    bench.write([*ROWS[:2], {**ROWS[2], "text": "THREE"}, {"id": "d", "text": "four", "note": "n"}])
    plan = bench.plan(rerun_on=["input", "new"] if asked else ["prompt"])
    assert plan.summary.reasons == ({"input": 1, "new": 1} if asked else {})
    assert plan.ids == (["c", "d"] if asked else [])
    assert (plan.summary.up_to_date, plan.summary.not_asked) == (2, 0 if asked else 2)


def test_of_several_changes_one_that_is_asked_for_suffices(bench: Bench) -> None:
    """If prompt and cap changed, the prompt is the reason.

    If `rerun_on` names only the model, the model is.
    """
    bench.land(ROWS)
    both = {**CHANGES["prompt"], **CHANGES["model"]}
    assert bench.plan(**both).summary.reasons == {"prompt": 3}
    assert bench.plan(**both, rerun_on=["model"]).summary.reasons == {"model": 3}


FAILURES = ["invalid", "truncated", "refused", "errored", "expired", "canceled", "missing"]


@pytest.mark.parametrize("status", FAILURES)
def test_failed_rows_are_tried_again(bench: Bench, status: str) -> None:
    """Every outcome but success is planned again while attempts remain.

    What was used and paid so far goes with the row.
    """
    bench.land(ROWS, status=status, error="provider: x", attempts=2)
    plan = bench.plan()
    assert plan.summary.reasons == {"failed": 3}
    names = (
        "_prior_attempts",
        "_prior_input_tokens",
        "_prior_output_tokens",
        "_prior_cache_read_tokens",
        "_prior_cost",
        "_replaced_cost",
    )
    assert [plan.rows[0][name] for name in names] == [2, 10, 5, 2, 5 * 10**11, 0]
    assert bench.plan(rerun_on=["new"]).summary.not_asked == 3


@pytest.mark.parametrize(
    ("attempts", "error", "retry", "sent"),
    [
        (2, "provider: overloaded", False, True),
        (3, "provider: overloaded", False, False),
        (4, "response: label: Field required", False, False),
        (3, "provider: overloaded", True, True),
        (1, "refused: no", False, False),
        (1, "request: bad", False, False),
        (0, "too_large: 9 bytes", False, False),
        (1, "refused: no", True, True),
        (1, None, False, True),
        (1, "truncated: stopped by max_tokens", False, True),
    ],
)
def test_hopeless_rows_are_left_alone(
    bench: Bench, attempts: int, error: str | None, retry: bool, sent: bool
) -> None:
    """Rows out of attempts, refusals and wrong requests are not paid for again.

    --retry-failed sends them all the same.
    """
    bench.land(ROWS, status="errored", error=error, attempts=attempts)
    plan = bench.plan(Options(retry_failed=retry))
    assert plan.summary.reasons == ({"failed": 3} if sent else {})
    assert plan.summary.exhausted == (0 if sent else 3)


def test_attempts_count_per_fingerprint(bench: Bench) -> None:
    """A row that is out of attempts is new again when its request changes."""
    bench.land(ROWS, status="refused", error="refused: no", attempts=3)
    plan = bench.plan(**CHANGES["prompt"])
    assert plan.summary.reasons == {"prompt": 3}
    assert {row["_prior_attempts"] for row in plan.rows} == {0}


def test_refresh_counts_older_rows_as_not_landed(bench: Bench) -> None:
    """Rows landed before the mark are sent again under any `rerun_on`; later ones are not."""
    bench.land(ROWS[:2])
    bench.land(ROWS[2:], "p2", enriched_at=datetime(2026, 6, 1, tzinfo=UTC))
    mark = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1e6)
    plan = bench.plan(Options(refresh_before=mark), rerun_on=["new"])
    assert (plan.summary.reasons, plan.ids, plan.summary.up_to_date) == (
        {"refresh": 2},
        ["a", "b"],
        1,
    )
    assert [row["_replaces"] for row in plan.rows] == ["p1.parquet"] * 2


def test_of_two_landed_rows_the_later_counts(bench: Bench) -> None:
    """While a commit is open the dataset holds a key twice; the plan goes by the newer row."""
    bench.land(ROWS, "new", enriched_at=datetime(2026, 2, 1, tzinfo=UTC))
    bench.land(ROWS, "old", status="errored", error="provider: x")
    assert bench.plan().summary.up_to_date == 3


@pytest.mark.parametrize("refresh", [None, 2**60])
def test_rows_in_flight_are_not_sent_twice(bench: Bench, refresh: int | None) -> None:
    """Rows that another run sent and nobody landed are left to it, even in a refresh.

    Also if they ask something else by now: their answers come first.
    """
    keys = {"a": False, "c": True, "gone": True}
    plan = bench.plan(
        Options(refresh_before=refresh),
        in_flight=[SentRow(digest_of(key), held, "v2:i.p.m.s") for key, held in keys.items()],
    )
    assert (plan.ids, plan.summary.in_flight, plan.summary.held) == (["b"], 2, 1)


# --- leaving out ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "ids"), [(1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"]), (4, ["a", "b", "c"])]
)
def test_a_limit_is_of_rows_that_need_work(bench: Bench, limit: int, ids: list[str]) -> None:
    """The first N rows that need work are sent; those beyond are counted."""
    plan = bench.plan(limit=limit)
    assert (plan.ids, plan.summary.over_limit, plan.summary.requests) == (
        ids,
        3 - len(ids),
        len(ids),
    )


def test_landed_rows_use_up_no_limit(bench: Bench) -> None:
    """Try 20 before 20,000: the next 20 are other rows."""
    bench.land(ROWS[:1])
    plan = bench.plan(limit=1)
    assert (plan.ids, plan.summary.over_limit, plan.summary.up_to_date) == (["b"], 1, 1)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("id != 'b'", ["a", "c"]),
        ("row['text'] | length == 3", ["a", "b"]),
        ("false", []),
        ("note in ['x', 'z']", ["a", "c"]),
    ],
)
def test_where_leaves_rows_out(bench: Bench, where: str, ids: list[str]) -> None:
    """Only rows that satisfy the expression are planned; it may read columns of its own."""
    plan = bench.plan(where=where, columns=[])
    assert (plan.ids, plan.summary.filtered, plan.summary.source_rows) == (ids, 3 - len(ids), 3)


def test_rows_that_where_leaves_out_may_be_broken(bench: Bench) -> None:
    """Nulls, double keys and templates that fail matter only for rows that are kept."""
    bench.suffix = "jsonl"
    bench.write(
        [
            {"id": None, "text": "t"},
            {"id": "a", "text": None},
            {"id": "a", "text": "t"},
            {"id": "a", "text": None},
        ]
    )
    assert bench.plan(where="id and text", columns=None).ids == ["a"]


NULLS = [
    {"id": "a", "text": "one", "note": None},
    {"id": "b", "text": None, "note": "y"},
    {"id": "c", "text": "three", "note": "z"},
]


def test_a_null_is_an_error_that_names_the_row(bench: Bench) -> None:
    """By default a null in a column that the templates use stops the plan.

    One in another column does not matter.
    """
    bench.suffix = "jsonl"
    bench.write(NULLS)
    with pytest.raises(
        SourceError,
        match=(
            r"^on_null: the column 'text' .* is null in row 2 \(id='b'\); "
            "fill it in, or set `on_null`"
        ),
    ):
        bench.plan()
    bench.write([NULLS[0], NULLS[2]])
    assert bench.plan().ids == ["a", "c"]


def test_a_null_may_be_empty_or_skipped(bench: Bench) -> None:
    """`skip` leaves the row out and counts it; `empty` renders nothing in its place."""
    bench.suffix = "jsonl"
    bench.write(NULLS)
    plan = bench.plan(on_null="skip")
    assert (plan.ids, plan.summary.null_skipped) == (["a", "c"], 1)
    plan = bench.plan(on_null="empty", prompt="[{{ text }}]")
    assert [body["messages"][0]["content"] for body in plan.bodies] == ["[one]", "[]", "[three]"]


def test_null_and_empty_text_are_two_inputs(bench: Bench) -> None:
    """They render alike and differ: a filled-in null is a changed input."""
    bench.suffix = "jsonl"
    bench.write(NULLS)
    plan = bench.plan(on_null="empty", prompt="[{{ text }}]")
    builder = plan.table.builder
    assert fingerprint_of(builder, {**NULLS[1], "text": ""}) != fingerprint_of(builder, NULLS[1])


def test_an_empty_prompt_is_refused(bench: Bench) -> None:
    """A row that renders to blanks would be refused by the provider, and is named."""
    bench.write([ROWS[0], {**ROWS[1], "text": "  "}])
    with pytest.raises(SourceError, match=r"row 2 \(id='b'\) renders to an empty prompt"):
        bench.plan()


def test_a_value_beyond_python_is_told_by_row_and_column(bench: Bench) -> None:
    """A day of the year 20000, say, which Parquet can hold."""
    days = pa.array([1, 2, 6_585_000], type=pa.date32())
    path = bench.folder / "days.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": days, "note": ["x"] * 3}), path)
    with pytest.raises(SourceError, match=r"^source: the column 'text' has in row 3 a value that"):
        bench.plan(source=str(path))


SHOTS = [
    {"role": "system", "content": "Label. {{ note }}"},
    {"role": "user", "content": "{{ shot }}"},
    {"role": "assistant", "content": "{{ reply }}"},
    {"role": "user", "content": "{{ text }}"},
]
FULL = {"id": "a", "note": "", "shot": "x", "reply": "y", "text": "z"}


@pytest.mark.parametrize("blank", ["", " \t"])
@pytest.mark.parametrize(("column", "place"), [("shot", 1), ("reply", 2)])
def test_an_empty_turn_is_refused_where_the_provider_refuses_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, column: str, place: int, blank: str
) -> None:
    """The row and the turn are named. OpenAI takes such turns, so they go out as they are."""
    bench.write([FULL, {**FULL, "id": "b", column: blank}])
    with pytest.raises(SourceError) as refusal:
        bench.plan(prompt=None, messages=SHOTS)
    assert str(refusal.value).startswith(
        f"messages.{place}: row 2 (id='b') renders to an empty turn, which the provider refuses; "
    )
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    plan = Bench(bench.folder, OpenAIAdapter).plan(prompt=None, messages=SHOTS, model="gpt-6-luna")
    assert plan.bodies[1]["messages"][place]["content"] == blank


@pytest.mark.parametrize("provider", [AnthropicAdapter, OpenAIAdapter])
def test_an_empty_last_turn_is_an_empty_prompt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, provider: type[Adapter]
) -> None:
    """An example that is there does not make up for a question that is not."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    bench.write([FULL, {**FULL, "id": "b", "text": " "}])
    model = "gpt-6-luna" if provider is OpenAIAdapter else "claude-haiku-5-5"
    match = r"^messages\.3: row 2 \(id='b'\) renders to an empty prompt"
    with pytest.raises(SourceError, match=match):
        Bench(bench.folder, provider).plan(prompt=None, messages=SHOTS, model=model)


def test_an_empty_system_prompt_is_none(bench: Bench) -> None:
    """Anthropic refuses blank texts, and takes requests without a system prompt."""
    bench.write([{"id": "a", "text": "x", "note": " "}, {"id": "b", "text": "y", "note": "n"}])
    plan = bench.plan(system="{{ note }}")
    assert [body.get("system") for body in plan.bodies] == [None, "n"]


def test_a_system_turn_in_the_middle_is_refused_where_it_would_move(bench: Bench) -> None:
    """Anthropic has one system prompt, before all turns: the order would be another one."""
    bench.write([FULL])
    with pytest.raises(SpecError, match=r"^messages\.1: Anthropic takes system turns only before"):
        bench.plan(prompt=None, messages=[SHOTS[1], SHOTS[0], SHOTS[3]])


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [1, 2, BATCH_ROWS - 1, BATCH_ROWS, BATCH_ROWS + 1])
def test_double_keys_are_refused_wherever_they_are(bench: Bench, distance: int) -> None:
    """Within a block of rows or across blocks: both rows are named, and nothing is planned."""
    rows = [{"id": str(n), "text": "t", "note": "n"} for n in range(distance + 2)]
    rows[distance + 1]["id"] = "1"
    bench.write(rows)
    expected = (
        rf"^key: rows 2 and {distance + 2} of the source have the same key \(id='1'\); "
        "keys must be unique"
    )
    with pytest.raises(SourceError, match=expected):
        bench.plan()
    assert not list((bench.folder / "run").glob("*"))


def test_keys_are_typed(bench: Bench) -> None:
    """The texts "01" and "1" differ; 1 and 1.0 are one number in a column of floats."""
    bench.write([{"id": "01", "text": "t", "note": "n"}, {"id": "1", "text": "t", "note": "n"}])
    assert bench.plan().ids == ["01", "1"]
    bench.suffix = "jsonl"
    bench.write([{"id": 1, "text": "t", "note": "n"}, {"id": 1.0, "text": "t", "note": "n"}])
    with pytest.raises(SourceError, match="rows 1 and 2 of the source have the same key"):
        bench.plan()


def test_keys_of_several_columns(bench: Bench) -> None:
    """Together they identify a row; values that run into one another are not confused."""
    bench.write(
        [
            {"id": "a", "text": "bc", "note": "n"},
            {"id": "ab", "text": "c", "note": "n"},
            {"id": "a", "text": "c", "note": "n"},
        ]
    )
    plan = bench.plan(key=["id", "text"])
    assert plan.summary.requests == 3
    bench.write([ROWS[0], {**ROWS[0], "note": "other"}])
    with pytest.raises(SourceError, match=r"the same key \(id='a', text='one'\)"):
        bench.plan(key=["id", "text"])


def test_a_null_key_is_refused(bench: Bench) -> None:
    """A row without its key could not be found again."""
    bench.suffix = "jsonl"
    bench.write([ROWS[0], {**ROWS[1], "id": None}])
    with pytest.raises(
        SourceError,
        match=(
            "^key: 'id' is null in row 2 of the source; fill it in, "
            r"or leave such rows out with `where`\.$"
        ),
    ):
        bench.plan()


def test_rows_are_counted_as_in_the_source(bench: Bench) -> None:
    """`where` in front of a bad row does not change its number."""
    bench.suffix = "jsonl"
    bench.write([*ROWS[:2], {**ROWS[2], "text": None}])
    with pytest.raises(SourceError, match=r"row 3 \(id='c'\)"):
        bench.plan(where="id != 'a'")


# --- rows that landed under an earlier version ----------------------------------------------------


def earlier(bench: Bench, row: dict[str, Any]) -> str:
    """Return the fingerprint that version 1 gave a row."""
    first = part("input", {"text": row["text"]})
    others = fingerprint_of(bench.table().builder, row).partition(".")[2]
    return f"v1:{first}.{others}"


def test_rows_of_version_1_are_up_to_date(bench: Bench) -> None:
    """A row keeps its fingerprint of the earlier version, also if its number was read as a float.

    A changed input is told as such.
    """
    bench.suffix = "jsonl"
    rows = [{"id": "a", "text": 1, "note": "x"}, {"id": "b", "text": 2, "note": "y"}]
    bench.write(rows)
    for row in rows:
        as_float = {**row, "text": float(row["text"])}
        bench.land([row], row["id"], fingerprint=earlier(bench, as_float))
    assert bench.plan().summary.reasons == {"input": 2}
    known = bench.plan(legacy={"text": pa.float64()})
    assert (known.summary.reasons, known.summary.up_to_date) == ({}, 2)
    bench.write([rows[0], {**rows[1], "text": 3}])
    assert bench.plan(legacy={"text": pa.float64()}).summary.reasons == {"input": 1}


def test_code_that_knows_version_1_alone_refuses_the_dataset(bench: Bench) -> None:
    """It would send all rows again: the record of types says that newer code has been there."""
    folder = DatasetFolder(str(bench.folder))
    folder.create()
    DeclaredSchema().write(folder)
    record = read_json(folder.own / "schema.json")
    assert record is not None
    assert record["format"] == 2
    assert DeclaredSchema.read(folder) == DeclaredSchema()


def test_attempts_of_version_1_go_on_counting(bench: Bench) -> None:
    """A row that failed under the earlier version is the same request, and keeps its fingerprint.

    A changed prompt is told as such.
    """
    for row in ROWS:
        bench.land(
            [row],
            row["id"],
            fingerprint=earlier(bench, row),
            status="errored",
            error="provider: x",
            attempts=2,
        )
    plan = bench.plan()
    assert plan.summary.reasons == {"failed": 3}
    assert [row["_prior_attempts"] for row in plan.rows] == [2, 2, 2]
    assert [row["_fingerprint"] for row in plan.rows] == [earlier(bench, row) for row in ROWS]
    assert bench.plan(prompt="Label {{ text }}").summary.reasons == {"prompt": 3}


def test_answers_to_requests_of_version_1_are_recovered(bench: Bench) -> None:
    """A row that the dataset lost is known by the id that the earlier version gave its request."""
    ids = {row_id(DATASET, canonical([row["id"]]), earlier(bench, row)) for row in ROWS[:2]}
    planner = Planner(bench.table(), bench.folder / "run", DATASET, Options(), claimed=ids)
    planner.run()
    assert (planner.summary.recovered, planner.summary.reasons) == (2, {"new": 1})
    claimed = read_plan(bench.folder / "run", "claimed").to_pylist()
    assert {row["_row_id"] for row in claimed} == ids
    assert [row["_fingerprint"] for row in claimed] == [earlier(bench, row) for row in ROWS[:2]]


# --- carried columns, sizes, chunks ---------------------------------------------------------------


def test_changed_carried_columns_are_rewritten_and_nothing_is_sent(bench: Bench) -> None:
    """A changed column that no template reads is rewritten: part, key and new values.

    It makes no request.
    """
    bench.land(ROWS[:2])
    bench.land(ROWS[2:], "p2")
    bench.write([{**ROWS[0], "note": "NEW"}, ROWS[1], {**ROWS[2], "note": "Z"}])
    plan = bench.plan()
    assert (plan.spans, plan.summary.carried, plan.summary.up_to_date) == ([], 2, 3)
    assert dict(plan.planner.carried) == {
        "p1.parquet": {digest_of("a"): ("NEW",)},
        "p2.parquet": {digest_of("c"): ("Z",)},
    }


def test_a_row_that_is_sent_anyway_is_not_rewritten(bench: Bench) -> None:
    """If input and carried column changed, the new row has both."""
    bench.land(ROWS)
    bench.write([{**ROWS[0], "note": "NEW", "text": "ONE"}, *ROWS[1:]])
    plan = bench.plan()
    assert (plan.summary.reasons, plan.summary.carried, plan.rows[0]["note"]) == (
        {"input": 1},
        0,
        "NEW",
    )


def test_a_column_that_is_newly_carried_is_filled_in(bench: Bench) -> None:
    """Landed rows get a newly named column without a request."""
    bench.land(ROWS, using={"columns": []})
    assert bench.plan(columns=["note"]).summary.carried == 3


def test_a_request_over_the_limit_is_not_sent(bench: Bench) -> None:
    """It lands as an error with the reason and costs nothing; the other rows are sent."""
    bench.provider = Small
    bench.write([ROWS[0], {**ROWS[1], "text": "x" * 2000}, ROWS[2]])
    plan = bench.plan()
    assert (plan.ids, [row["id"] for row in plan.local]) == (["a", "c"], ["b"])
    assert (plan.summary.too_large, plan.summary.requests, plan.summary.reasons) == (
        1,
        2,
        {"new": 3},
    )
    (large,) = plan.local
    assert (
        large["_error"]
        == f"too_large: the request has {large['_bytes']:,} bytes; one batch holds 2,000"
    )
    assert (large["_bound"], plan.summary.bound) == (0, sum(row["_bound"] for row in plan.rows))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [({}, [3, 3, 1]), ({"items_per_batch": 2}, [2, 2, 2, 1]), ({"items_per_batch": 9}, [3, 3, 1])],
)
def test_spans_keep_the_limits(bench: Bench, spec: dict[str, Any], expected: list[int]) -> None:
    """Seven rows under a limit of three, or of `items_per_batch`, make spans of three."""
    bench.provider = Small
    bench.write({"id": str(n), "text": "t", "note": "n"} for n in range(7))
    plan = bench.plan(**spec)
    assert [span.stop - span.start for span in plan.spans] == expected
    assert plan.summary.batches == len(expected)
    assert plan.summary.bound == sum(row["_bound"] for row in plan.rows)


def test_a_plan_reads_many_blocks(bench: Bench) -> None:
    """Rows of several record batches are planned once each, in order."""
    bench.write({"id": str(n), "text": f"t{n}", "note": "n"} for n in range(2 * BATCH_ROWS + 3))
    plan = bench.plan(where="id != '5'")
    assert plan.ids == [str(n) for n in range(2 * BATCH_ROWS + 3) if n != 5]
    assert plan.bodies[-1]["messages"][0]["content"] == f"t{2 * BATCH_ROWS + 2}"


def test_the_index_is_gone_afterwards(bench: Bench) -> None:
    """Planning's scratch file is deleted, even if a row stops the plan."""
    bench.suffix = "jsonl"
    bench.write([{**ROWS[0], "text": None}])
    with pytest.raises(SourceError):
        bench.plan()
    assert not list((bench.folder / "run").iterdir())


# --- before any row is read -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"key": "ID"}, "key: the source has no column 'ID'; it has: id, text, note."),
        (
            {"columns": ["text", "notes"]},
            "columns: the source has no column 'notes'; it has: id, text, note.",
        ),
        ({"prompt": "{{ txt }}"}, "prompt: the template uses 'txt'"),
        ({"system": "{{ txt }}"}, "system: the template uses 'txt'"),
        (
            {"prompt": None, "messages": [{"role": "user", "content": "{{ txt }}"}]},
            "messages.0: the template uses 'txt'",
        ),
        ({"where": "txt"}, "where: the condition uses 'txt'"),
        (
            {"model": "claude-unheard-of-9", "cost_limit_usd": 1},
            (
                "model: no batch price is known for 'claude-unheard-of-9', so cost_limit_usd "
                "could not hold; check its name"
            ),
        ),
        ({"params": {"max_tokens": 5}}, "params.max_tokens: this is set by the spec's own keys"),
        (
            {"params": {"tools": []}, "cost_limit_usd": 1},
            "params.tools: its effect on the price has no bound",
        ),
        (
            {"response_schema": {"type": "object", "properties": {"note": {"type": "string"}}}},
            "the column 'note' is a field of the response model and a source column",
        ),
        (
            {"response_schema": {"type": "object", "properties": {"_status": {"type": "string"}}}},
            "the column '_status' is a field of the response model and a metadata column",
        ),
    ],
)
def test_what_needs_no_row_is_checked_first(
    bench: Bench, values: dict[str, Any], sentence: str
) -> None:
    """What needs no row is checked before one is read.

    That is unknown columns, unpriced models under a limit, unbounded parameters and name clashes.
    """
    with pytest.raises(SpecError) as caught:
        bench.table(**values)
    assert str(caught.value).startswith(sentence)


def test_a_dataset_with_another_key_is_refused(bench: Bench) -> None:
    """The key of a dataset cannot change: its rows could not be told apart."""
    bench.land(ROWS)
    with pytest.raises(SpecError, match=r"^key: the dataset in .* has no column 'text'"):
        bench.plan(key=["text"], columns=[])


KEY_TYPES: dict[str, tuple[pa.DataType, Callable[[int], Any]]] = {
    "date": (pa.date32(), lambda n: n),
    "date64": (pa.date64(), lambda n: n * 86_400_000),
    "seconds": (pa.timestamp("s"), lambda n: n),
    "nanoseconds": (pa.timestamp("ns"), lambda n: n * 7 + 1),
    "zoned": (pa.timestamp("us", "Europe/Berlin"), lambda n: n),
    "time": (pa.time32("s"), lambda n: n),
    "duration": (pa.duration("ms"), lambda n: n),
    "decimal": (pa.decimal128(38, 9), Decimal),
    "uint64": (pa.uint64(), lambda n: 2**63 + n),
    "float32": (pa.float32(), lambda n: n / 3),
    "binary": (pa.binary(), lambda n: bytes([n])),
    "large": (pa.large_string(), str),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), str),
    "struct": (pa.struct([("x", pa.int8())]), lambda n: {"x": n}),
    "list": (pa.list_(pa.float64()), lambda n: [n, None]),
    "boolean": (pa.bool_(), lambda n: n == 1),
}


@pytest.mark.parametrize("name", KEY_TYPES)
def test_keys_survive_the_dataset(bench: Bench, name: str) -> None:
    """A key or carried column of any type is found again after it landed.

    No row is paid for twice.
    """
    kind, make = KEY_TYPES[name]
    values = pa.array([make(0), make(1)], type=kind)
    source = pa.table({"id": values, "note": values, "text": ["one", "two"]})
    pq.write_table(source, bench.folder / "source.parquet")
    bench.suffix = "parquet"
    assert bench.plan().summary.reasons == {"new": 2}
    bench.land(
        [
            dict(zip(source.column_names, row, strict=True))
            for row in zip(*(c.to_pylist() for c in source.columns), strict=True)
        ]
    )
    found = bench.plan()
    assert (found.summary.up_to_date, found.summary.carried, found.summary.reasons) == (2, 0, {})
    assert keys_of(source, ["id"]) == keys_of(
        pq.read_table(bench.folder / "data" / "p1.parquet"), ["id"]
    )
