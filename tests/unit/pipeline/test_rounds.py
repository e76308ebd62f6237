"""Rounds send rows again that are worth another attempt, changed as their failure requires.

Ledger, dataset and provider agree on the money.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchata_tasks.common.money import usd
from batchata_tasks.ledger import Chunk, ChunkState
from batchata_tasks.planning.summary import Options
from batchata_tasks.pricing.lookup import published_rates
from tests.support.books import all_chunks, check_money, money, run_with, sent, stopping_at
from tests.support.operations import preview
from tests.support.table import MODELS, SCHEMA, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.pipeline.steps import Steps

pytestmark = pytest.mark.in_turn

ROWS = 6
CAPS = {"anthropic": "max_tokens", "openai": "max_completion_tokens"}


@pytest.fixture(params=MODELS)
def table(
    request: pytest.FixtureRequest,
    emulator: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Table:
    """Return a table of six rows, for each provider."""
    monkeypatch.setenv("BATCHATA_PATIENCE", "0.4")
    return Table(tmp_path, emulator, request.param, rows=ROWS)


def row_of(table: Table, key: str) -> dict[str, Any]:
    return next(row for row in table.rows() if row["id"] == key)


def cap_of(table: Table, body: dict[str, Any]) -> int:
    return int(body[CAPS[table.provider]])


def ended(receipt: Receipt) -> dict[str, int]:
    return {name: rows for name, rows in receipt.outcomes.items() if rows}


# --- what each failure asks for -------------------------------------------------------------------


@pytest.mark.parametrize("unrun", ["request_expired", "request_error"])
def test_a_larger_cap_that_brought_no_answer_leaves_the_row_truncated(
    table: Table, unrun: str
) -> None:
    """A row that a larger cap left without an answer stays truncated.

    It is not sent under the first cap again, which was paid for.
    """
    control = table.emulator.control
    control.faults(kind="request_truncated", contains="row 4", times=1)
    table.run(rerun_on=["new"])
    control.faults(kind=unrun, contains="row 4", times=2)
    receipt = table.run(max_attempts=9)
    assert (row_of(table, "k4")["_status"], receipt.exit_code) == ("succeeded", 0)
    caps = [cap_of(table, body) for body in sent(table, "text of row 4")]
    assert len(caps) == 4
    assert caps[0] not in caps[1:]
    assert table.ledger()["billed_twice"]["number"] == 0
    check_money(table)


@pytest.mark.parametrize("schema", [SCHEMA, None])
def test_an_error_of_the_provider_is_tried_again_as_it_is(table: Table, schema: Any) -> None:
    """A row with a provider's error is sent again alone, byte for byte.

    It succeeds in the same run. The failed attempt counts as one.
    """
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    receipt = table.run(response_schema=schema)
    assert (receipt.result, receipt.exit_code, receipt.rounds, receipt.batches) == (
        "succeeded",
        0,
        2,
        2,
    )
    first, second = sent(table, "text of row 4")
    assert first == second
    assert (row_of(table, "k4")["_attempts"], row_of(table, "k3")["_attempts"]) == (2, 1)
    assert table.ledger()["requests_accepted"] == ROWS + 1
    table.check_answers()
    check_money(table)


def test_the_receipt_counts_a_row_once_and_its_tokens_each_time(table: Table) -> None:
    """A row that failed and then succeeded counts as succeeded; all billed tokens count."""
    table.emulator.control.faults(kind="request_invalid_answer", contains="row 4", times=1)
    receipt = table.run()
    assert ended(receipt) == {"succeeded": ROWS}
    assert receipt.failed_share == 0
    book = table.ledger()
    assert (receipt.input_tokens, receipt.output_tokens) == (
        book["input_tokens_billed"],
        book["output_tokens_billed"],
    )
    assert sum(row["_output_tokens"] for row in table.rows()) == receipt.output_tokens
    assert receipt.cost_usd is not None
    assert Decimal(receipt.cost_usd) == usd(check_money(table).settled)


def test_an_outcome_that_no_row_has_is_not_named(table: Table) -> None:
    """An outcome that no row has is not in the receipt, not even as zero."""
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    assert table.run().outcomes == {"succeeded": ROWS}


def test_a_receipt_of_success_tells_of_no_error(table: Table) -> None:
    """A receipt does not list an error that another attempt has fixed."""
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    assert table.run().errors == {}


@pytest.mark.parametrize("attempts", [3, 1])
def test_an_invalid_answer_is_told_what_was_wrong(table: Table, attempts: int) -> None:
    """In a round, as in a later run, the validator's message is a further user turn.

    The fingerprint stays the base request's.
    """
    table.emulator.control.faults(kind="request_invalid_answer", contains="row 4", times=1)
    table.run(max_attempts=attempts)
    if attempts == 1:
        wrong = row_of(table, "k4")
        assert wrong["_status"] == "invalid"
        assert ended(table.run(max_attempts=3)) == {"succeeded": 1}
        assert row_of(table, "k4")["_fingerprint"] == wrong["_fingerprint"]
    base, again = (table.turns(body) for body in sent(table, "text of row 4"))
    assert again[:-1] == base
    assert again[-1]["role"] == "user"
    assert "was not accepted: " in again[-1]["content"]
    row = row_of(table, "k4")
    assert (row["_status"], row["_attempts"]) == ("succeeded", 2)
    assert row["_fingerprint"].split(".")[1:] == row_of(table, "k3")["_fingerprint"].split(".")[1:]
    assert table.run().plan["up_to_date"] == ROWS
    check_money(table)


def test_the_remark_is_the_validators_message_of_the_last_answer(table: Table) -> None:
    """Each attempt quotes the answer before it, once: remarks do not pile up."""
    table.emulator.control.faults(kind="request_invalid_answer", contains="row 4")
    receipt = table.run()
    assert ended(receipt) == {"invalid": 1, "succeeded": ROWS - 1}
    row, bodies = row_of(table, "k4"), sent(table, "text of row 4")
    base = len(table.turns(bodies[0]))
    assert [len(table.turns(body)) for body in bodies] == [base, base + 1, base + 1]
    said = [str(table.turns(body)[-1]["content"]) for body in bodies[1:]]
    assert any(row["_error"].partition(": ")[2] in text for text in said)
    assert row["_attempts"] == 3
    check_money(table)


@pytest.mark.parametrize("schema", [SCHEMA, None])
def test_a_truncated_answer_gets_twice_the_cap_and_then_four_times(
    table: Table, schema: Any
) -> None:
    """Caps are doubled twice at most, and the reserved bound grows with them."""
    table.emulator.control.faults(kind="request_truncated", contains="row 4")
    table.run(response_schema=schema, max_attempts=5)
    assert [cap_of(table, body) for body in sent(table, "text of row 4")] == [
        200,
        400,
        800,
        800,
        800,
    ]
    rates = published_rates(table.provider, MODELS[table.provider])
    assert rates is not None
    bounds = [chunk.bound or 0 for chunk in all_chunks() if chunk.rows == 1]
    grown = [later - earlier for earlier, later in pairwise(bounds)]
    assert grown == [400 * rates.output.base, 0, 0]
    check_money(table)


def test_a_cap_of_our_own_making_ends_the_truncation(table: Table) -> None:
    """An answer that needs twice the cap has it on the second attempt.

    Reasoning counts against the cap.
    """
    receipt = table.run(response_schema=None, max_tokens=5)
    assert (ended(receipt), receipt.rounds) == ({"succeeded": ROWS}, 2)
    table.check_answers()
    check_money(table)


def test_caps_do_not_pile_up_over_runs(table: Table) -> None:
    """An attempt in a later run starts from the base request too.

    Four times the cap is the most.
    """
    table.emulator.control.faults(kind="request_truncated", contains="row 4")
    table.run(max_attempts=1)
    table.run(max_attempts=4)
    assert [cap_of(table, body) for body in sent(table, "text of row 4")] == [200, 400, 800, 800]
    check_money(table)


def test_remarks_do_not_pile_up_over_runs(table: Table) -> None:
    """An attempt in a later run starts from the base request too.

    It quotes only the last answer.
    """
    table.emulator.control.faults(kind="request_invalid_answer", contains="row 4")
    table.run(max_attempts=1)
    table.run(max_attempts=3)
    bodies = sent(table, "text of row 4")
    base = len(table.turns(bodies[0]))
    assert [len(table.turns(body)) for body in bodies] == [base, base + 1, base + 1]
    check_money(table)


def test_a_retry_of_a_retry_has_its_whole_bound_reserved(table: Table) -> None:
    """A retry with a raised cap is reserved at the bound of what is sent.

    That also holds after it failed for another reason, so a limit holds.
    """
    table.emulator.control.faults(kind="request_truncated", contains="row 4", times=1)
    table.run(max_attempts=1)
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    table.run(max_attempts=3)
    rates = published_rates(table.provider, MODELS[table.provider])
    assert rates is not None
    caps = [cap_of(table, body) for body in sent(table, "text of row 4")][1:]
    bounds = [chunk.bound or 0 for chunk in all_chunks() if chunk.rows == 1]
    assert len(caps) == len(bounds) == 2
    assert (
        len({bound - cap * rates.output.base for cap, bound in zip(caps, bounds, strict=True)}) == 1
    )
    check_money(table)


def test_a_raised_cap_survives_an_error_in_between(table: Table) -> None:
    """A cap that was too small is not tried again after an error of another kind."""
    table.emulator.control.faults(kind="request_truncated", contains="row 4", times=1)
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    table.run()
    assert min(cap_of(table, body) for body in sent(table, "text of row 4")[1:]) >= 400


def test_a_raised_cap_that_the_model_refuses_is_no_wrong_request(
    emulator: Emulator, tmp_path: Path
) -> None:
    """If the model does not allow twice the cap, the row stays truncated.

    Its own request was right.
    """
    table, most = Table(tmp_path, emulator, "anthropic", ROWS), 64_000
    table.emulator.control.faults(kind="request_truncated", contains="row 4")
    receipt = table.run(max_tokens=most)
    assert ended(receipt) == {"truncated": 1, "succeeded": ROWS - 1}


@pytest.mark.parametrize(
    "fault", ["request_missing", "request_broken_line", "request_unknown_type"]
)
def test_a_line_that_is_missing_or_broken_is_an_attempt(table: Table, fault: str) -> None:
    """A row whose line is missing or broken is sent again and succeeds.

    If the cost of the lost answer is unknown, its bound counts as overhead.
    """
    table.emulator.control.faults(kind=fault, contains="row 4", times=1)
    receipt = table.run()
    assert (ended(receipt), receipt.rounds) == ({"succeeded": ROWS}, 2)
    assert row_of(table, "k4")["_attempts"] == 2
    table.check_answers()
    sums = check_money(table, lost=True)
    if fault != "request_unknown_type":
        assert (
            sums.overhead
            == preview(
                table.spec(where="id == 'k4'", output=str(table.folder / "other"))
            ).summary.bound
        )
        assert any("without a readable result line" in text for text in receipt.warnings)


@pytest.mark.parametrize("kind", ["batch_expires", "batch_cancelled"])
def test_what_never_ran_goes_again_and_is_no_attempt(table: Table, kind: str) -> None:
    """If half of a batch expired or was cancelled, only that half is sent again.

    Each row has one attempt.
    """
    table.emulator.control.faults(kind=kind, share=0.5, count=1)
    receipt = table.run()
    assert (receipt.result, ended(receipt), receipt.rounds) == ("succeeded", {"succeeded": ROWS}, 2)
    assert {row["_attempts"] for row in table.rows()} == {1}
    book = table.ledger()
    assert (book["requests_accepted"], book["requests_billed"], book["billed_twice"]["number"]) == (
        ROWS + ROWS // 2,
        ROWS,
        0,
    )
    check_money(table)


@pytest.mark.parametrize("kind", ["batch_expires", "batch_cancelled"])
def test_what_never_runs_does_not_loop_for_ever(table: Table, kind: str) -> None:
    """If nothing of a batch ever runs, a run tries as often as a row may be attempted.

    The next run does the same.
    """
    table.emulator.control.faults(kind=kind, share=0.0)
    receipt = table.run()
    assert (receipt.result, receipt.exit_code, receipt.rounds) == ("some_rows_failed", 3, 3)
    assert sum(receipt.outcomes.values()) == ROWS
    assert {row["_attempts"] for row in table.rows()} == {0}
    assert check_money(table).settled == 0
    table.emulator.control.clear_faults()
    assert ended(table.run()) == {"succeeded": ROWS}
    check_money(table)


@pytest.mark.parametrize(
    ("fault", "outcome"), [("request_refusal", "refused"), ("request_invalid", "errored")]
)
def test_refusals_and_wrong_requests_are_final(table: Table, fault: str, outcome: str) -> None:
    """They end the same way each time, so no round or later run pays for them again."""
    table.emulator.control.faults(kind=fault, contains="row 4", times=1)
    receipt = table.run()
    assert (ended(receipt), receipt.rounds) == ({outcome: 1, "succeeded": ROWS - 1}, 1)
    again = table.run()
    assert (again.plan["exhausted"], ended(again), again.exit_code) == (1, {}, 3)
    assert table.ledger()["requests_accepted"] == ROWS
    check_money(table)


# --- how often ------------------------------------------------------------------------------------


def test_attempts_are_counted_over_rounds_and_runs_together(table: Table) -> None:
    """Two attempts in one run leave one for the next, and none for the one after that."""
    table.emulator.control.faults(kind="request_error", contains="row 4")
    assert table.run(max_attempts=2).rounds == 2
    assert row_of(table, "k4")["_attempts"] == 2
    second = table.run(max_attempts=3)
    assert (second.rounds, ended(second), second.plan["reasons"]) == (
        1,
        {"errored": 1},
        {"failed": 1},
    )
    assert row_of(table, "k4")["_attempts"] == 3
    third = table.run(max_attempts=3)
    assert (third.plan["exhausted"], third.batches, third.exit_code) == (1, 0, 3)
    assert len(sent(table, "text of row 4")) == 3
    check_money(table)


def test_one_attempt_in_one_run_leaves_two_rounds_for_the_next(table: Table) -> None:
    """The rounds of a run end when the attempts of all runs are used up."""
    table.emulator.control.faults(kind="request_error", contains="row 4")
    table.run(max_attempts=1)
    assert table.run(max_attempts=3).rounds == 2
    assert row_of(table, "k4")["_attempts"] == 3
    check_money(table)


def test_retry_failed_gives_one_more_attempt(table: Table) -> None:
    """`--retry-failed` sends rows that are out of attempts once more, without further rounds."""
    table.emulator.control.faults(kind="request_error", contains="row 4")
    table.run(max_attempts=2)
    receipt = table.run(Options(retry_failed=True), max_attempts=2)
    assert (ended(receipt), receipt.rounds) == ({"errored": 1}, 1)
    assert row_of(table, "k4")["_attempts"] == 3
    table.emulator.control.clear_faults()
    assert ended(table.run(Options(retry_failed=True), max_attempts=2)) == {"succeeded": 1}
    check_money(table)


def test_a_changed_row_starts_counting_anew(table: Table) -> None:
    """Attempts belong to key and fingerprint.

    A changed text has all its attempts, and the old cost is superseded.
    """
    table.emulator.control.faults(kind="request_truncated", contains="row 4")
    table.run(max_attempts=2)
    table.values[4]["text"] = "row 4 in other words"
    table.write()
    receipt = table.run(max_attempts=2)
    assert (receipt.rounds, ended(receipt)) == (2, {"truncated": 1})
    assert [cap_of(table, body) for body in sent(table, "row 4 in other words")] == [200, 400]
    assert row_of(table, "k4")["_attempts"] == 2
    assert check_money(table).superseded > 0


@pytest.mark.parametrize("changes", [{"rerun_on": ["new", "input"]}, {"max_attempts": 1}])
def test_no_rounds_where_nobody_asked_for_them(table: Table, changes: dict[str, Any]) -> None:
    """Without `failed` in `rerun_on`, and with one attempt, a failed row stays."""
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    receipt = table.run(**changes)
    assert (receipt.rounds, ended(receipt)) == (1, {"errored": 1, "succeeded": ROWS - 1})
    assert table.ledger()["requests_accepted"] == ROWS


# --- with the rest of a spec ----------------------------------------------------------------------


def test_a_limit_that_allows_the_first_round_and_part_of_the_second(table: Table) -> None:
    """The exit code is 4, the rows keep their failures, and spend stays within the limit.

    A later run continues.
    """
    table.emulator.control.faults(kind="request_truncated")
    plain: dict[str, Any] = {"response_schema": None}
    first = preview(table.spec(max_tokens=128, **plain)).summary.bound
    second = preview(table.spec(max_tokens=256, where="id == 'k0'", **plain)).summary.bound
    assert first is not None
    assert second is not None
    limit = float(usd(first + second // 2))
    receipt = table.run(cost_limit_usd=limit, max_tokens=128, **plain)
    assert (receipt.result, receipt.exit_code, receipt.rounds) == ("cost_limit_reached", 4, 2)
    assert receipt.cost_usd is not None
    assert Decimal(receipt.cost_usd) <= Decimal(str(limit))
    assert ended(receipt) == {"truncated": ROWS}
    assert {row["_attempts"] for row in table.rows()} == {1, 2}
    assert {row["_status"] for row in table.rows()} == {"truncated"}
    assert receipt.unsent_rows == 0
    check_money(table)
    table.emulator.control.clear_faults()
    assert ended(table.run(max_tokens=128, **plain)) == {"succeeded": ROWS}
    check_money(table)


def test_a_round_that_the_limit_forbids_wholly(table: Table) -> None:
    """If no row of the second round can be paid for, nothing of it is sent."""
    long = "word " * 400
    table.values[0]["text"] = long
    table.write()
    table.emulator.control.faults(kind="request_truncated", contains="word", times=1)
    bound = preview(table.spec(where="id == 'k0'")).summary.bound
    assert bound is not None
    receipt = table.run(where="id == 'k0'", cost_limit_usd=float(usd(bound)))
    assert (receipt.result, receipt.exit_code, ended(receipt)) == (
        "cost_limit_reached",
        4,
        {"truncated": 1},
    )
    assert table.ledger()["requests_accepted"] == 1
    assert (row_of(table, "k0")["_status"], row_of(table, "k0")["_attempts"]) == ("truncated", 1)
    check_money(table)


def test_rounds_are_packed_as_the_spec_says(table: Table) -> None:
    """`items_per_batch` holds for later rounds too, whatever batches their rows come from."""
    table.emulator.control.faults(kind="request_error", times=1)
    receipt = table.run(items_per_batch=4, max_parallel_batches=2)
    assert (ended(receipt), receipt.batches) == ({"succeeded": ROWS}, 4)
    assert [(chunk.round, chunk.rows) for chunk in all_chunks()] == [(1, 4), (1, 2), (2, 4), (2, 2)]
    table.check_answers()
    check_money(table)


def test_rows_of_several_batches_share_one_of_the_next_round(table: Table) -> None:
    """One failed row in each of three batches makes one batch of three."""
    for row in (0, 2, 4):
        table.emulator.control.faults(kind="request_error", contains=f"row {row}", times=1)
    receipt = table.run(items_per_batch=2)
    assert (ended(receipt), receipt.batches) == ({"succeeded": ROWS}, 5)
    assert [(chunk.round, chunk.rows) for chunk in all_chunks()][3:] == [(2, 2), (2, 1)]
    table.check_answers()
    check_money(table)


TYPED = {
    "int64": pa.array(range(ROWS), pa.int64()),
    "uint8": pa.array(range(ROWS), pa.uint8()),
    "large_string": pa.array([f"k{i}" for i in range(ROWS)], pa.large_string()),
    "dictionary": pa.array([f"k{i}" for i in range(ROWS)]).dictionary_encode(),
    "date": pa.array([dt.date(2026, 1, 1 + i) for i in range(ROWS)]),
    "timestamp": pa.array(
        [dt.datetime(2026, 1, 1 + i, tzinfo=dt.UTC) for i in range(ROWS)], pa.timestamp("us", "UTC")
    ),
    "decimal": pa.array([Decimal(f"{i}.50") for i in range(ROWS)], pa.decimal128(9, 2)),
    "bool_and_int": None,
}


@pytest.mark.parametrize("kind", TYPED)
def test_typed_keys_and_columns_survive(emulator: Emulator, tmp_path: Path, kind: str) -> None:
    """Rows of two rounds have the same key, carried values and types as rows of one."""
    table = Table(tmp_path, emulator, "openai", ROWS)
    source, values = table.folder / "table.parquet", TYPED[kind]
    facts: dict[str, Any] = {
        "id": pa.array(range(ROWS)) if values is None else values,
        "text": [f"text of row {i}" for i in range(ROWS)],
        "n": pa.array([None, *range(1, ROWS)], pa.int32()),
        "tags": [[f"t{i}", None] for i in range(ROWS)],
        "at": pa.array([dt.datetime(2026, 1, 1 + i, tzinfo=dt.UTC) for i in range(ROWS)]),
        "flag": [i % 2 == 0 for i in range(ROWS)],
    }
    pq.write_table(pa.table(facts), source)
    key = ["id"] if values is not None else ["flag", "id"]
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    receipt = table.run(source=str(source), key=key, columns=["n", "tags", "at"], items_per_batch=3)
    assert (ended(receipt), receipt.rounds) == ({"succeeded": ROWS}, 2)
    rows, wanted = (
        sorted(pq.read_table(place).to_pylist(), key=lambda row: row["id"])
        for place in (table.output / "data", source)
    )
    for name in (*key, "n", "tags", "at"):
        assert [row[name] for row in rows] == [row[name] for row in wanted]
    assert [row["_attempts"] for row in rows] == [1, 1, 1, 1, 2, 1]
    assert (
        len(
            {
                str(pq.read_schema(path).remove_metadata())
                for path in (table.output / "data").iterdir()
            }
        )
        == 1
    )
    assert (
        table.run(source=str(source), key=key, columns=["n", "tags", "at"]).plan["up_to_date"]
        == ROWS
    )


def test_an_oversized_row_is_in_no_round(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that cannot be sent at all is unchanged by a round of others."""
    from batchata_tasks.planning import planner as plan

    table.values[4]["text"] = "long " * 2000
    table.write()
    monkeypatch.setattr(plan.Packer, "fits_alone", lambda _self, size, _route=0: size < 5000)
    table.emulator.control.faults(kind="request_error", contains="row 3", times=1)
    receipt = table.run()
    assert (ended(receipt), receipt.rounds) == ({"errored": 1, "succeeded": ROWS - 1}, 2)
    assert row_of(table, "k4")["_error"].startswith("too_large:")


def test_rounds_of_an_unpriced_model_have_no_cost(table: Table) -> None:
    """Without a price the retried row's cost is unknown, as the others' is."""
    model = {"anthropic": "claude-unheard-of-9", "openai": "gpt-6.2-sol"}[table.provider]
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    receipt = table.run(model=model)
    assert receipt.cost_usd is None
    assert {row["_cost_usd"] for row in table.rows()} == {None}
    assert row_of(table, "k4")["_status"] in ("succeeded", "errored")


def test_names_of_rows_are_the_same_in_every_round(table: Table) -> None:
    """A custom_id is the chunk's token and the row's id.

    The id follows from dataset, key and fingerprint alone.
    """
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    table.run()
    names = [name for name, body in table.bodies().items() if "text of row 4" in str(body)]
    assert len(names) == 2
    assert len({name.partition("-")[2] for name in names}) == 1
    assert len({name.partition("-")[0] for name in names}) == 2


# --- a run that dies in a later round ------------------------------------------------------------


def second_round(chunk: Chunk) -> bool:
    return chunk.round == 2


DEATHS = [
    ("chunk", False),
    ("submit", False),
    ("submit", True),
    ("poll", True),
    ("collect", False),
    ("collect", True),
]


@pytest.mark.parametrize(
    ("step", "after", "error"),
    [*((*death, KeyboardInterrupt) for death in DEATHS), ("poll", True, RuntimeError)],
)
def test_a_run_that_dies_in_its_second_round_is_carried_on(
    table: Table, step: str, after: bool, error: type[BaseException]
) -> None:
    """A planned round is fixed: the next start sends the rest of it, nothing twice, and ends it."""
    table.emulator.control.faults(kind="request_error", times=1)
    with pytest.raises(error):
        run_with(
            table,
            stopping_at(step, second_round, error("stop"), after=after),
            items_per_batch=3,
            max_parallel_batches=1,
        )
    before = [(chunk.id, chunk.round, chunk.start, chunk.stop) for chunk in all_chunks()]
    assert [shape[1] for shape in before] == [1, 1, 2, 2]
    receipt = table.run(items_per_batch=3, max_parallel_batches=1)
    assert receipt.continued
    assert (ended(receipt), receipt.rounds) == ({"succeeded": ROWS}, 2)
    assert [(chunk.id, chunk.round, chunk.start, chunk.stop) for chunk in all_chunks()] == before
    assert {chunk.state for chunk in all_chunks()} == {ChunkState.LANDED}
    book = table.ledger()
    assert (book["requests_accepted"], book["billed_twice"]["number"]) == (2 * ROWS, 0)
    assert {row["_attempts"] for row in table.rows()} == {2}
    table.check_answers()
    check_money(table)


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_dies_while_a_round_is_planned_is_carried_on(table: Table, after: bool) -> None:
    """A round that is not in the ledger yet is planned again after a crash, else not.

    Either way it runs once.
    """
    from dataclasses import replace

    from batchata_tasks.pipeline.steps import Steps

    def dying(run_id: str) -> dict[str, Any]:
        if after:
            Steps().next_round(run_id)
        message = "stop"
        raise KeyboardInterrupt(message)

    table.emulator.control.faults(kind="request_error", times=1)
    steps: Steps = replace(Steps(), next_round=dying)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, steps)
    assert [chunk.state for chunk in all_chunks()] == [ChunkState.LANDED, ChunkState.PLANNED][
        : 1 + after
    ]
    receipt = table.run()
    assert receipt.continued
    assert (ended(receipt), receipt.rounds) == ({"succeeded": ROWS}, 2)
    assert table.ledger()["requests_accepted"] == 2 * ROWS
    check_money(table)


def test_a_second_round_is_landed_under_its_own_spec(table: Table) -> None:
    """If the spec changes after the second round was sent, the round lands under the old spec.

    Then all rows are sent anew.
    """
    table.emulator.control.faults(kind="request_error", contains="row 4", times=1)
    with pytest.raises(KeyboardInterrupt):
        run_with(table, stopping_at("poll", second_round, KeyboardInterrupt("stop")))
    assert table.run(prompt="Now: {{ text }}").plan["reasons"] == {"prompt": ROWS}
    assert {row["_status"] for row in table.rows()} == {"succeeded"}
    table.check_answers()
    assert check_money(table).superseded > 0
    assert money(table).reserved == 0
