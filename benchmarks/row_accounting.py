"""Row accounting: how rows, money and runs end under every fault of the emulator.

Each fault strikes one run of the real pipeline over a table of eight rows, for each provider's API;
then the fault is removed and the same spec runs again. The figures are counts and sums, not times:
they are the same on every machine.

    python benchmarks/row_accounting.py            # writes row_accounting.md beside this file
    python benchmarks/row_accounting.py KIND ...   # prints the lines of these faults alone
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from batchata_tasks.common.errors import BatchataError, InputError
from batchata_tasks.common.money import usd
from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import Emulator
from batchata_tasks.emulator.core.fault_kinds import KINDS
from batchata_tasks.ledger import opened_ledger
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.spec.loading import parse_spec
from batchata_tasks.types.answer import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from batchata_tasks.pricing.rates import Rates

TABLE = Path(__file__).with_name("row_accounting.md")
MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
APIS = {
    "anthropic": ("anthropic", "chat"),
    "openai": ("openai", "chat"),
    "responses": ("openai", "responses"),
}
ROWS = 8
STRUCK = "k4"
# all answers have the same length, so that sums do not depend on which rows ran
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["x", "y", "z"]}},
    "required": ["label"],
}
COLUMNS = (
    "fault",
    "API",
    "how",
    "row k4",
    "all rows",
    "sent / rows",
    "tokens billed in / out",
    "billed $",
    "settled $",
    "of it overhead $",
    "in flight $",
    "batches",
    "rounds",
    "result",
    "exit",
    "next run",
)
_LEFT = 7  # columns of text; the others are figures


@dataclass(frozen=True)
class Case:
    """How one fault is provoked."""

    settings: dict[str, Any] = field(default_factory=dict[str, Any])  # of the fault rule
    spec: dict[str, Any] = field(default_factory=dict[str, Any])  # further keys of the spec
    patience: float = 4.0  # seconds
    grace: float = 0.5  # seconds
    with_: tuple[dict[str, Any], ...] = ()  # further rules, without which it strikes nothing


_ONCE = Case({"count": 1})
_FOR_GOOD = Case(patience=0.1)
_ROW = Case({"contains": "row 4"})
_LIMITED = {"time_limit": "1s"}
_LOST = ({"kind": "drop_after", "count": 1},)
CASES: dict[str, Case] = {
    "http_429": Case({"route": "create"}, patience=0.1),
    "spend_cap": _FOR_GOOD,
    "hard_limit": _FOR_GOOD,
    "http_error": Case({"route": "get", "status": 503, "count": 1}),
    "html_413": _FOR_GOOD,
    "http_500_before": _ONCE,
    "http_500_after": _ONCE,
    "drop_before": _ONCE,
    "drop_after": _ONCE,
    "accept_delay": Case({"count": 1, "seconds": 0.3}, grace=2.0),
    "list_lag": Case({"count": 1, "seconds": 0.3}, grace=2.0),
    "token_limit": _ONCE,
    "slow": Case({"route": "create", "count": 1, "seconds": 0.3}),
    "slow_after": Case({"route": "create", "count": 1, "seconds": 0.3}),
    "drip": Case({"route": "create", "count": 1, "seconds": 0.3}),
    "not_found": Case({"count": 2}),
    "cut_download": Case({"count": 1, "after_bytes": 900}),
    "batch_expires": Case({"count": 1, "share": 0.5}),
    "batch_cancelled": Case({"count": 1, "share": 0.5}),
    "never_ends": Case({"count": 1, "share": 0.5}, {"time_limit": "1s"}),
    "late_files": Case({"count": 1, "reads": 2}),
    "request_missing": Case({"contains": "row 4"}, patience=0.1),
    "http_error_after": Case({"count": 1, "status": 408}),
    "drop_mid_answer": _ONCE,
    "garbled_answer": _ONCE,
    "cancel_conflict": Case(spec=_LIMITED, with_=({"kind": "never_ends", "share": 1.0},)),
    "cancel_ignored": Case(spec=_LIMITED, with_=({"kind": "never_ends", "share": 1.0},)),
    "stuck_finalizing": Case(spec=_LIMITED),
    "forgets": Case(patience=0.1),
    "odd_objects": Case({"style": "capitals"}),
    "redirect": _ONCE,
    "create_names_job": Case(patience=0.1),
    "list_short": Case(with_=_LOST),
    "list_endless": Case({"count": 1}, with_=_LOST),
    "false_end": Case({"count": 1, "reads": 2}),
    "end_taken_back": Case({"count": 1, "reads": 2}),
    "fails_billed": _FOR_GOOD,
    "odd_id": Case({"style": "number"}),
}


NEVER = {
    "length_required": "each time; creates have a length",
    "max_tokens_only": "each time; for chat alone",
}
"""Faults that strike no run."""
ELSEWHERE = {
    "token_limit": ("anthropic",),
    "request_invalid_line": ("anthropic",),
    "request_filtered": ("anthropic",),
    "request_failed": ("anthropic", "openai"),
    "request_iterations": ("openai", "responses"),
    "request_search_first": ("openai", "responses"),
    "request_parts": ("responses",),
    "request_eos": ("responses",),
    "request_body_text": ("anthropic",),
    "request_lost": ("anthropic",),
    "request_error_beside": ("anthropic",),
    "request_error_in_body": ("anthropic",),
}
"""Faults that an API does not have."""


def case_of(kind: str) -> Case:
    """Return how to provoke a fault; by default, it strikes row k4 each time, or one call."""
    return CASES.get(kind) or (_ROW if KINDS[kind].scope in ("request", "line") else _ONCE)


def main() -> None:
    """Write the table, or print some lines of it."""
    with tempfile.TemporaryDirectory() as folder, Emulator() as emulator:
        if kinds := sys.argv[1:]:
            print("\n".join(lines(kinds, emulator, Path(folder))))
        else:
            TABLE.write_text(page(lines(KINDS, emulator, Path(folder))), encoding="utf-8")


def page(table_lines: Iterable[str]) -> str:
    """Return the whole page."""
    head = " | ".join(COLUMNS)
    figures = len(COLUMNS) - _LEFT - 3
    rule = " | ".join(["---"] * _LEFT + ["---:"] * figures + ["---", "---:", "---"])
    return f"""# Row accounting

How {ROWS} rows, their money and their run end under every fault of the emulator. Written by
`python benchmarks/row_accounting.py`, which runs the real pipeline; all figures are counts or sums,
not times.

Kinds: {", ".join(KINDS)}

- *API*: Anthropic's, and OpenAI's chat completions and responses.
- *how*: the settings of the fault, and further keys of the spec; faults of single requests strike
  row k4 each time.
- *row k4*, *all rows*: how they ended, and after how many attempts that may have run; in a batch,
  chance decides which rows ran.
- *sent / rows*: requests that the provider accepted in all, for how many rows.
- *billed*: by the provider. *settled*: spent, by the ledger; *overhead*: the part of it that
  no row's tokens account for (lines that nobody sent, and the most that a request can have cost
  whose line is lost, or states no usage, or one that cannot be). *in flight*: reserved, not settled
  yet.
- *next run*: the same spec once more, without the fault: exit code, rows that succeeded by then,
  requests accepted in all.

| {head} |
| {rule} |
""" + "".join(f"{line}\n" for line in table_lines)


def lines(kinds: Iterable[str], emulator: Emulator, folder: Path) -> Iterator[str]:
    """Yield a line of the table for each fault and API."""
    for kind in kinds:
        for api in APIS:
            place = folder / f"{kind}-{api}"
            place.mkdir()
            yield "| " + " | ".join(_cells(kind, api, emulator, place)) + " |"


def _spec(api: str, place: Path) -> dict[str, Any]:
    """Write the table; return the spec over it."""
    provider, endpoint = APIS[api]
    source = place / "table.csv"
    rows = "".join(f"k{i},text of row {i}\n" for i in range(ROWS))
    source.write_text(f"id,text\n{rows}", encoding="utf-8")
    return {
        "name": "accounting",
        "source": str(source),
        "key": "id",
        "model": MODELS[provider],
        "endpoint": endpoint,
        "prompt": "{{ text }}",
        "response_schema": SCHEMA,
        "max_tokens": 64,
        "output": str(place / "out"),
        "pilot": False,
    }


def _cells(kind: str, api: str, emulator: Emulator, place: Path) -> list[str]:
    """Run the spec under a fault and again without it; return the line of the table."""
    case, spec = case_of(kind), _spec(api, place)
    provider, _ = APIS[api]
    emulator.control.reset()
    for rule in (*case.with_, {"kind": kind, **case.settings}):
        emulator.control.faults(**rule)
    with _environment(emulator, place, case):
        result, code, rounds, batches = _run({**spec, **case.spec})
        struck = all(rule["strikes"] for rule in emulator.control.list_faults())
        first = _standing(provider, emulator, place)
        emulator.control.clear_faults()
        _, again, _, _ = _run(spec)
        later = _standing(provider, emulator, place)
    settings = {**case.settings, **case.spec}
    how = ", ".join(f"{name} {value}" for name, value in settings.items()) or "each time"
    if case.with_:
        how += f", with {' and '.join(rule['kind'] for rule in case.with_)}"
    if api in ELSEWHERE.get(kind, ()) or KINDS[kind].only not in (None, provider):
        how = "does not exist there"
    elif kind in NEVER:
        how = NEVER[kind]
    elif not struck:
        message = f"the fault {kind} never struck {api}"
        raise RuntimeError(message)
    row = first.row if KINDS[kind].scope in ("request", "line") else "-"
    return [
        kind,
        api,
        how,
        row,
        first.rows,
        first.sent,
        first.tokens,
        *first.money,
        str(batches or "-"),
        str(rounds or "-"),
        result,
        str(code),
        f"{again}: {later.succeeded} of {ROWS}, {later.accepted} sent",
    ]


@contextmanager
def _environment(emulator: Emulator, place: Path, case: Case) -> Iterator[None]:
    values = emulator.env() | {
        "BATCHATA_LEDGER_URL": f"sqlite:///{place / 'ledger.db'}",
        "BATCHATA_POLL_INTERVAL": "0.05",
        "BATCHATA_UNCLEAR_GRACE": str(case.grace),
        "BATCHATA_PATIENCE": str(case.patience),
        "BATCHATA_CANCEL_GRACE": "0.5",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _run(spec: dict[str, Any]) -> tuple[str, int, int, int]:
    """Run a spec; return (result, exit code, rounds, batches)."""
    try:
        receipt = enrich(parse_spec(spec))
    except BatchataError as error:
        return type(error).__name__, 2 if isinstance(error, InputError) else 1, 0, 0
    return receipt.result.replace("_", " "), receipt.exit_code, receipt.rounds, receipt.batches


@dataclass(frozen=True)
class Standing:
    """Rows, requests and money after a run."""

    row: str
    rows: str
    sent: str
    tokens: str
    money: list[str]
    succeeded: int
    accepted: int


def _standing(provider: str, emulator: Emulator, place: Path) -> Standing:
    rows: dict[str, dict[str, Any]] = {}
    if any(place.glob("out/data/*")):
        rows = {row["id"]: row for row in pq.read_table(place / "out" / "data").to_pylist()}
    endings = Counter(map(_ending, rows.values()))
    book = emulator.control.ledger(detail=True)[provider]
    rates = published_rates(provider, MODELS[provider])
    if rates is None:
        message = f"no price is known for {MODELS[provider]}"
        raise RuntimeError(message)
    ids = {
        name.partition("-")[2]
        for content in book["contents"].values()
        for name in content["custom_ids"]
    }
    billed = rates.cost(Usage(book["input_tokens_billed"], book["output_tokens_billed"]))
    settled, overhead, in_flight = _ledger_money(rates)
    return Standing(
        row=_ending(rows[STRUCK]) if STRUCK in rows else "-",
        rows=", ".join(f"{count} {name}" for name, count in sorted(endings.items()))
        or "none landed",
        sent=f"{book['requests_accepted']} / {len(ids)}",
        tokens=f"{book['input_tokens_billed']} / {book['output_tokens_billed']}",
        money=[_plain(amount) for amount in (billed, settled, overhead, in_flight)],
        succeeded=sum(row["_status"] == "succeeded" for row in rows.values()),
        accepted=book["requests_accepted"],
    )


def _ending(row: dict[str, Any]) -> str:
    return f"{row['_status']} ({row['_attempts']})"


def _ledger_money(rates: Rates) -> tuple[int, int, int]:
    """Return (settled, the overhead in it, in flight) of all runs, in picodollars."""
    settled = in_flight = overhead = 0
    with opened_ledger(Settings().ledger_url) as ledger:
        for run in ledger.runs_of(None, 10):
            run_settled, run_in_flight = ledger.money(run.id)
            settled += run_settled
            in_flight += run_in_flight
            totals = ledger.outcomes(run.id).values()
            used = [Usage(total.input_tokens, total.output_tokens) for total in totals]
            by_rows = sum(map(rates.cost, used))
            overhead += run_settled - by_rows
    return settled, overhead, in_flight


def _plain(pico: int) -> str:
    return f"{usd(pico).normalize():f}" if pico else str(Decimal(0))


if __name__ == "__main__":
    main()
