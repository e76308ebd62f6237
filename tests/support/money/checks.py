"""What must hold after a scenario.

Every figure comes from the provider's books, priced independently.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from batchata_tasks.emulator import answer_text
from batchata_tasks.emulator.answers.text import answer
from batchata_tasks.types.ids import TOKEN_CHARS
from tests.support.money.bill import Bill, bill_of, price
from tests.support.money.place import PICO, Data, ask

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_REACHED = 4
_ONE_PERCENT = 100  # a cut chunk has at least 1 % of the planned rows


@dataclass
class Ending:
    """How a dataset's last run ended."""

    code: int
    receipt: dict[str, Any]


@dataclass
class Found:
    """The result of a scenario."""

    problems: list[str] = field(default_factory=list[str])
    spent: Decimal = Decimal(0)
    utilisation: float | None = None  # of the last run: what it spent of what it could have
    unsent: int = 0
    held: int = 0  # rows
    decided: int = 0  # chunks, by a person
    batches: int = 0


class Books:
    """Ledger, provider's books and datasets of a scenario, side by side."""

    def __init__(self, home: Path, datas: list[Data], book: dict[str, Any]) -> None:
        self.home, self.datas = home, datas
        scenario = datas[0].scenario
        self.bill: Bill = bill_of(scenario.provider, scenario.model, book)
        self.runs = ask(
            home,
            (
                "SELECT r.*, d.url FROM runs r JOIN datasets d ON d.id "
                "= r.dataset_id ORDER BY r.started_at"
            ),
        )
        self.chunks = ask(home, "SELECT * FROM chunks ORDER BY round, start")
        self.reservations = ask(home, "SELECT * FROM reservations")
        self.held = {chunk["id"] for chunk in self.chunks if chunk["state"] == "held"}
        run_of = {chunk["id"]: chunk["run_id"] for chunk in self.chunks}
        self.by_run: dict[str, Decimal] = defaultdict(Decimal)
        for chunk, cost in self.bill.by_chunk.items():
            self.by_run[run_of.get(chunk, "no run")] += cost

    @property
    def undecided(self) -> Decimal:
        """What the provider billed for chunks of which the program does not know it."""
        return sum((self.bill.by_chunk.get(chunk, Decimal(0)) for chunk in self.held), Decimal(0))

    def reserved(self, run: str) -> int:
        """Return what held chunks of a run keep reserved, in picodollars."""
        return sum(
            row["reserved"]
            for row in self.reservations
            if row["run_id"] == run and row["settled"] is None
        )

    def known(self, run: str) -> Decimal:
        """Return what the provider billed for chunks of a run that are not held."""
        held = (chunk["id"] for chunk in self.chunks if chunk["run_id"] == run)
        return self.by_run[run] - sum(
            (self.bill.by_chunk.get(chunk, Decimal(0)) for chunk in held if chunk in self.held),
            Decimal(0),
        )

    def problems(self) -> list[str]:
        """Check all that needs no dataset's rows."""
        problems = [f"{custom_id} was accepted twice" for custom_id in self.bill.twice]
        problems += [
            f"${cost} of no run" for run, cost in self.by_run.items() if run == "no run" and cost
        ]
        problems += [
            f"run {run['id']} is {run['state']}" for run in self.runs if run["state"] != "closed"
        ]
        problems += self._unsettled()
        for run in self.runs:
            spent, limit = self.by_run[run["id"]], run["cost_limit"]
            if limit is not None and spent > limit * PICO:
                problems.append(f"run {run['id']} spent ${spent} of a limit of ${limit * PICO}")
            settled = (
                sum(row["settled"] or 0 for row in self.reservations if row["run_id"] == run["id"])
                * PICO
            )
            if settled != self.known(run["id"]):
                problems.append(f"run {run['id']} settled ${settled}, the bill says ${spent}")
            if limit is not None and self.reserved(run["id"]) * PICO + settled > limit * PICO:
                problems.append(f"run {run['id']} has more reserved than its limit leaves")
        return problems + self._sums()

    def _unsettled(self) -> list[str]:
        """Held chunks alone stay reserved, with at least what they cost."""
        open_ones = [row for row in self.reservations if row["settled"] is None]
        problems = [f"unsettled: {row}" for row in open_ones if row["chunk_id"] not in self.held]
        reserved = {row["chunk_id"]: row["reserved"] * PICO for row in open_ones}
        return problems + [
            f"held chunk {chunk} has ${reserved.get(chunk)} reserved, the bill says ${cost}"
            for chunk in self.held
            if (cost := self.bill.by_chunk.get(chunk, Decimal(0))) > reserved.get(chunk, 0)
        ]

    def _sums(self) -> list[str]:
        settled, other = (
            sum(sum(row[name] or 0 for name in names) for row in self.reservations)
            for names in (("settled",), ("superseded", "overhead"))
        )
        dataset = sum((row["_cost_usd"] for data in self.datas for row in data.rows()), Decimal(0))
        if settled * PICO == dataset + other * PICO == self.bill.total - self.undecided:
            return []
        return [
            (
                f"settled ${settled * PICO}, "
                f"dataset ${dataset} and ${other * PICO} besides, bill ${self.bill.total}"
            )
        ]


def check_rows(data: Data, books: Books) -> list[str]:
    """Each accepted key has one row with its own answer; unsent keys have none."""
    rows, sent = data.rows(), data.sent()
    times, found = Counter(row["id"] for row in rows), list[str]()
    # a row whose answer was of no use is asked the same again, and counts that as an attempt
    attempts = {row["id"]: row["_attempts"] for row in rows}
    accepted: dict[str, list[str]] = defaultdict(list)
    held = set[str]()
    for name in sent.keys() & books.bill.accepted.keys():
        accepted[key_of(sent[name])].append(books.bill.accepted[name])
        if name[:TOKEN_CHARS] in books.held:
            held.add(key_of(sent[name]))
    found += [
        f"{key} was billed twice for the same request"
        for key, contents in accepted.items()
        if books.bill.again.intersection(contents) and len(contents) > attempts.get(key, 0)
    ]
    found += [f"{key} has {number} rows" for key, number in times.items() if number > 1]
    found += [
        f"{key} was accepted and has no row"
        for key in sorted(accepted.keys() - times.keys() - held)[:3]
    ]
    found += [
        f"{key} has a row and was never accepted"
        for key in sorted(times.keys() - accepted.keys())[:3]
    ]
    found += [f"{key} is no key of the table" for key in times.keys() - set(data.keys)]
    for row in rows:
        body = sent.get(row["_custom_id"] or "")
        if body is None or key_of(body) != row["id"]:
            found.append(f"{row['id']} has the request {row['_custom_id']}: {body}")
        elif row["_status"] == "succeeded" and row["_response"] != answer_text(
            data.scenario.provider, body, data.scenario.lengths
        ):
            found.append(f"{row['id']} has the answer {row['_response']!r}")
    return found


def key_of(body: dict[str, Any]) -> str:
    """Return the key that a request's prompt begins with."""
    first = next(turn for turn in body["messages"] if turn["role"] == "user")
    return str(first["content"]).split(" ")[0]


def check_end(data: Data, books: Books, ending: Ending, found: Found) -> None:
    """Check how the last run of a dataset ended, and that a limit that stopped it was used."""
    unsent = [key for key in data.keys if key not in {row["id"] for row in data.rows()}]
    run = next(run for run in reversed(books.runs) if run["url"] == data.output.resolve().as_uri())
    spent, limit = books.known(run["id"]), run["cost_limit"]
    found.unsent += len(unsent)
    receipt = ending.receipt
    held = int(receipt["held_rows"])
    found.held += held
    if ending.code != LIMIT_REACHED:
        if len(unsent) > held:
            found.problems.append(
                f"exit code {ending.code}, and {len(unsent)} rows were not sent: {unsent[:3]}"
            )
    elif limit is not None and not data.spec.get("budget"):
        left = int(limit - spent / PICO) - books.reserved(run["id"])
        free = [] if held else unsent  # rows that are held cannot be sent, whatever is left
        found.problems += _left_over(
            data, books, run["id"], receipt["plan"]["requests"], free, left
        )
    # not counted are rows of an earlier run in the dataset that were planned for another attempt
    first = receipt["plan"]["requests"] == len(data.keys) and all(
        row["_run_id"] == run["id"] for row in data.rows()
    )
    least = receipt["unsent_rows"]  # held rows of a later round are in the dataset already
    same = len(unsent) <= least + held and (not first or least <= len(unsent))
    if Decimal(receipt["cost_usd"]) != spent or receipt["run_id"] != run["id"] or not same:
        told = {name: receipt[name] for name in ("cost_usd", "unsent_rows", "run_id")}
        found.problems.append(f"the receipt says {told}; not {spent}, {len(unsent)}, {run['id']}")
    if len(books.runs) == 1 and limit and not held:
        could = could_spend(data, books)
        found.utilisation = float(spent / could) if could else None


def _left_over(
    data: Data, books: Books, run: str, planned: int, unsent: list[str], left: int
) -> list[str]:
    """Describe a piece that the guard could still have sent.

    Such a piece is 1 % of the planned rows, consecutive and of one chunk.
    """
    smallest, found = max(1, planned // _ONE_PERCENT), list[str]()
    dropped = [
        chunk for chunk in books.chunks if chunk["run_id"] == run and chunk["state"] == "dropped"
    ]
    if not dropped:
        found.append("the limit stopped it, and no chunk was dropped")
    for chunk in dropped:
        rows = chunk["stop"] - chunk["start"]
        if rows >= smallest and chunk["bound"] <= left:
            found.append(
                f"${left * PICO} was left, and chunk {chunk['id']} of {rows} rows (round "
                f"{chunk['round']}) needs ${chunk['bound'] * PICO}"
            )
        if chunk["round"] > 1 or planned != len(data.keys):
            continue  # its rows are not the table's
        bounds = [data.bounds[key] for key in data.keys[chunk["start"] : chunk["stop"]]]
        pieces = [sum(bounds[i : i + smallest]) for i in range(rows - smallest + 1)]
        if pieces and min(pieces) <= left:
            found.append(
                f"${left * PICO} was left, "
                f"and {smallest} rows of chunk {chunk['id']} need ${min(pieces) * PICO}"
            )
    if smallest == 1 and unsent and left >= (least := min(data.bounds[key] for key in unsent)):
        found.append(f"${left * PICO} was left, and an unsent row needs ${least * PICO}")
    return found


def could_spend(data: Data, books: Books) -> Decimal:
    """Return the smaller of a dataset's limit and the cost of all its rows.

    Rows that were not sent count without further attempts.
    """
    done = {row["id"] for row in data.rows()}
    runs = [run["id"] for run in books.runs if run["url"] == data.output.resolve().as_uri()]
    spent = sum((books.by_run[run] for run in runs), Decimal(0))
    whole = spent + sum(
        (_first_cost(data, key) for key in data.keys if key not in done), Decimal(0)
    )
    limit = data.spec.get("cost_limit_usd")
    return whole if limit is None else min(whole, Decimal(str(limit)))


def _first_cost(data: Data, key: str) -> Decimal:
    """Return what a row that was not sent would have cost, without further attempts."""
    said = answer(data.scenario.provider, data.bodies[key], lengths=data.scenario.lengths)
    return price(data.scenario.provider, data.scenario.model, said.input_tokens, said.output_tokens)
