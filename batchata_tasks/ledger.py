"""The ledger: runs, chunks, intents, batches, money and leases, in SQLite or another database.

It decides. A file, a Prefect cache or a process's memory may save time, but what was sent, what it
may cost and who may send next is read here. Every write is one transaction, durable on return.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, delete, event, func, insert, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from batchata_tasks import tables as t
from batchata_tasks.errors import LeaseError, LedgerError, SpecError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from sqlalchemy import Connection, Row

# a chunk's life, in order; `dropped` is a planned chunk that will never be sent, `held` one of
# which nobody can tell whether it was accepted: a person decides
PLANNED, UNCLEAR, SUBMITTED, COLLECTED, LANDED, DROPPED, HELD = (
    "planned", "unclear", "submitted", "collected", "landed", "dropped", "held",
)
UNFINISHED = (UNCLEAR, SUBMITTED, COLLECTED)


def now_us() -> int:
    """Return the time as microseconds since 1970."""
    return time.time_ns() // 1000


def new_id() -> str:
    """Return 160 random bits as hexadecimal digits."""
    return secrets.token_hex(20)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Jobs that travel as one provider batch: rows `start` to `stop` of the run's plan."""

    id: str
    run_id: str
    dataset_id: str
    round: int
    kind: str
    provider: str
    model: str
    endpoint: str
    start: int
    stop: int
    bytes: int
    bound: int | None
    state: str
    batch_id: str | None = None

    @property
    def rows(self) -> int:
        """How many Jobs it holds."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Intent:
    """What was about to be sent, under which account, when."""

    chunk_id: str
    account: str
    requests: int
    fence: int
    sent_at: int
    input_file_id: str | None = None
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows, tokens and money of one outcome."""

    rows: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cost: int | None = None

    def __add__(self, other: Tally) -> Tally:
        cost = self.cost if other.cost is None else other.cost + (self.cost or 0)
        return Tally(
            self.rows + other.rows, self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens, cost,
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to plan, send and commit for one dataset; `fence` tells old holders from new."""

    dataset_id: str
    fence: int
    holder: str


class Ledger:
    """One ledger; safe to use from several threads and processes."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            self.is_sqlite = parsed.get_backend_name() == "sqlite"
            if self.is_sqlite and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            arguments = {"timeout": 60, "check_same_thread": False} if self.is_sqlite else {}
            self._engine = create_engine(parsed, connect_args=arguments, poolclass=QueuePool)
        except (ArgumentError, ImportError) as error:
            what = f"there is no module {error.name}" if isinstance(error, ImportError) else "it is no URL of a known database"
            message = f"BATCHATA_LEDGER_URL: {what}; write it as sqlite:////folder/ledger.db or postgresql+psycopg://user@host/name."
            raise SpecError(message) from None
        except OSError as error:
            message = f"BATCHATA_LEDGER_URL: the ledger cannot be opened: {error.strerror}."
            raise LedgerError(message) from error
        if self.is_sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self.id = self._open()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _begin(self, *, reading: bool = False) -> Generator[Connection, None, None]:
        try:
            with self._engine.connect().execution_options(batchata_reading=reading) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            # the driver's own text names the table and the reason, never the URL's password
            reason = getattr(error, "orig", None) or type(error).__name__
            message = f"the ledger refused a read or write: {reason}."
            raise LedgerError(message) from error

    def _open(self) -> str:
        with self._begin() as connection:
            t.metadata.create_all(connection)
            found = connection.execute(select(t.meta)).first()
            if found is None:
                ledger_id = new_id()
                row = {"ledger_id": ledger_id, "schema_version": t.SCHEMA_VERSION, "created_at": now_us()}
                connection.execute(insert(t.meta).values(row))
                return ledger_id
        if found.schema_version != t.SCHEMA_VERSION:
            message = f"the ledger has schema version {found.schema_version}, this program writes version {t.SCHEMA_VERSION}; update it."
            raise LedgerError(message)
        return str(found.ledger_id)

    # --- datasets and leases -----------------------------------------------------------------

    def dataset_id(self, url: str, known_id: str | None) -> str:
        """Return the id of the dataset at `url`; `known_id` is what its folder says of itself."""
        with self._begin() as connection:
            found = connection.execute(select(t.datasets.c.id).where(t.datasets.c.url == url)).scalar()
            if found is not None and known_id in (None, found):
                return str(found)
            dataset_id = known_id or new_id()
            # a dataset that was moved keeps its id, and with it what was paid for
            connection.execute(delete(t.datasets).where(t.datasets.c.url == url))
            moved = connection.execute(update(t.datasets).where(t.datasets.c.id == dataset_id).values(url=url))
            if moved.rowcount == 0:
                row = {"id": dataset_id, "url": url, "created_at": now_us(), "fence": 0}
                connection.execute(insert(t.datasets).values(row))
            return dataset_id

    def dataset_url(self, dataset_id: str) -> str:
        """Return where a dataset lies, or lay when it was used last."""
        with self._begin(reading=True) as connection:
            return str(connection.execute(select(t.datasets.c.url).where(t.datasets.c.id == dataset_id)).scalar_one())

    def acquire_lease(self, dataset_id: str, seconds: float) -> Lease:
        """Take the lease on a dataset; raises LeaseError while another run holds it."""
        holder = f"process {os.getpid()} on {_machine()}"
        with self._begin() as connection:
            row = self._locked_dataset(connection, dataset_id)
            if row.holder is not None and row.lease_until > now_us() and not _is_dead(row.holder):
                wait = (row.lease_until - now_us()) / 1e6
                message = (
                    f"another run holds this dataset: {row.holder}; wait for it, "
                    f"or, if it is dead, start again in {wait:.0f} s."
                )
                raise LeaseError(message)
            values = {"fence": row.fence + 1, "holder": holder, "lease_until": now_us() + int(seconds * 1e6)}
            connection.execute(update(t.datasets).where(t.datasets.c.id == dataset_id).values(values))
            return Lease(dataset_id, row.fence + 1, holder)

    def renew_lease(self, lease: Lease, seconds: float) -> None:
        """Prolong the lease; raises LeaseError when it has gone to another run."""
        with self._begin() as connection:
            self._check(connection, lease, expired_too=False)
            until = now_us() + int(seconds * 1e6)
            connection.execute(update(t.datasets).where(t.datasets.c.id == lease.dataset_id).values(lease_until=until))

    def release_lease(self, lease: Lease) -> None:
        """Give the lease back, if it is still ours."""
        mine = (t.datasets.c.id == lease.dataset_id) & (t.datasets.c.fence == lease.fence)
        with self._begin() as connection:
            connection.execute(update(t.datasets).where(mine).values(holder=None, lease_until=None))

    def _locked_dataset(self, connection: Connection, dataset_id: str) -> Row[Any]:
        query = select(t.datasets).where(t.datasets.c.id == dataset_id).with_for_update()
        return connection.execute(query).one()

    def _check(self, connection: Connection, lease: Lease, *, expired_too: bool = True) -> None:
        """Refuse a holder whose lease went to another run, or ended: it may not write or send."""
        row = self._locked_dataset(connection, lease.dataset_id)
        if row.fence != lease.fence or (expired_too and (row.lease_until or 0) < now_us()):
            message = "this run lost its hold on the dataset, since it showed no life for too long; start it again."
            raise LeaseError(message)

    # --- runs ----------------------------------------------------------------------------------

    def open_run(self, dataset_id: str) -> Row[Any] | None:
        """Return the run of this dataset that has not finished, if there is one."""
        query = select(t.runs).where(t.runs.c.dataset_id == dataset_id, t.runs.c.state != "closed")
        with self._begin(reading=True) as connection:
            return connection.execute(query.order_by(t.runs.c.started_at.desc())).first()

    def begin_run(self, lease: Lease, values: Mapping[str, Any]) -> str:
        """Record a new run, in state planning."""
        run_id = new_id()
        row = {"id": run_id, "dataset_id": lease.dataset_id, "state": "planning", "started_at": now_us(), **values}
        with self._begin() as connection:
            self._check(connection, lease)
            connection.execute(insert(t.runs).values(row))
        return run_id

    def run(self, run_id: str) -> Row[Any]:
        """Return one run's row."""
        with self._begin(reading=True) as connection:
            return connection.execute(select(t.runs).where(t.runs.c.id == run_id)).one()

    def runs_of(self, dataset_id: str | None, limit: int) -> list[Row[Any]]:
        """Return the newest runs, of one dataset or of all."""
        query = select(t.runs).order_by(t.runs.c.started_at.desc()).limit(limit)
        if dataset_id is not None:
            query = query.where(t.runs.c.dataset_id == dataset_id)
        with self._begin(reading=True) as connection:
            return list(connection.execute(query).all())

    def fix_plan(self, lease: Lease, run_id: str, plan: Mapping[str, Any], chunks: Iterable[Chunk]) -> None:
        """Write the run's chunk list; from here on the run is resumed, never planned again."""
        with self._begin() as connection:
            self._check(connection, lease)
            connection.execute(delete(t.chunks).where(t.chunks.c.run_id == run_id))
            for chunk in chunks:
                connection.execute(insert(t.chunks).values(_chunk_row(chunk)))
            connection.execute(update(t.runs).where(t.runs.c.id == run_id).values(state="open", plan=json.dumps(plan)))

    def add_round(self, lease: Lease, chunks: Iterable[Chunk]) -> None:
        """Write the chunks of a run's next round; from here on the round is not planned again."""
        with self._begin() as connection:
            self._check(connection, lease)
            for chunk in chunks:
                connection.execute(insert(t.chunks).values(_chunk_row(chunk)))

    def request_stop(self, run_id: str, reason: str) -> None:
        """Ask a run to send nothing more and to cancel its batches; the first reason stays."""
        unasked = (t.runs.c.id == run_id) & t.runs.c.stop.is_(None)
        with self._begin() as connection:
            connection.execute(update(t.runs).where(unasked).values(stop=reason))

    def stop_reason(self, run_id: str) -> str | None:
        """Return why a run is to stop before its end, or None."""
        with self._begin(reading=True) as connection:
            return connection.execute(select(t.runs.c.stop).where(t.runs.c.id == run_id)).scalar_one()

    def close_run(self, lease: Lease, run_id: str, result: str, error: str | None = None) -> None:
        """End a run; chunks that were never sent are dropped, and hold no money any more."""
        with self._begin() as connection:
            self._check(connection, lease)
            unsent = (t.chunks.c.run_id == run_id) & (t.chunks.c.state == PLANNED)
            held = t.reservations.c.chunk_id.in_(select(t.chunks.c.id).where(unsent))
            connection.execute(delete(t.reservations).where(held))
            connection.execute(update(t.chunks).where(unsent).values(state=DROPPED, updated_at=now_us()))
            values = {"state": "closed", "result": result, "error": error, "finished_at": now_us()}
            connection.execute(update(t.runs).where(t.runs.c.id == run_id).values(values))

    # --- chunks --------------------------------------------------------------------------------

    def chunk(self, chunk_id: str) -> Chunk:
        """Return one chunk."""
        with self._begin(reading=True) as connection:
            return _chunk(connection.execute(select(t.chunks).where(t.chunks.c.id == chunk_id)).one())

    def chunks(self, run_id: str, states: Iterable[str] | None = None) -> list[Chunk]:
        """Return the chunks of a run in the order of their rows."""
        query = select(t.chunks).where(t.chunks.c.run_id == run_id).order_by(t.chunks.c.round, t.chunks.c.start)
        if states is not None:
            query = query.where(t.chunks.c.state.in_(list(states)))
        with self._begin(reading=True) as connection:
            return [_chunk(row) for row in connection.execute(query)]

    def place_of(self, chunk: Chunk) -> int:
        """Return a chunk's place among the run's, from 1; rows that are not sent come last."""
        earlier = (t.chunks.c.kind == "batch") & (
            (t.chunks.c.round < chunk.round) | ((t.chunks.c.round == chunk.round) & (t.chunks.c.start < chunk.start))
        )
        before = earlier if chunk.kind == "batch" else t.chunks.c.id != chunk.id
        query = select(func.count()).select_from(t.chunks).where(t.chunks.c.run_id == chunk.run_id, before)
        with self._begin(reading=True) as connection:
            return 1 + int(connection.execute(query).scalar_one())

    def chunks_in(self, states: Iterable[str]) -> list[Chunk]:
        """Return the chunks of all datasets that are in one of the states, oldest first."""
        query = select(t.chunks).where(t.chunks.c.state.in_(list(states))).order_by(t.chunks.c.updated_at)
        with self._begin(reading=True) as connection:
            return [_chunk(row) for row in connection.execute(query)]

    def unfinished_chunks(self, dataset_id: str, but_run: str) -> list[Chunk]:
        """Return chunks of other runs whose rows are in flight, unlanded or held."""
        query = select(t.chunks).where(
            t.chunks.c.dataset_id == dataset_id, t.chunks.c.run_id != but_run, t.chunks.c.state.in_((*UNFINISHED, HELD))
        )
        with self._begin(reading=True) as connection:
            return [_chunk(row) for row in connection.execute(query)]

    def split_chunk(self, lease: Lease, chunk: Chunk, head: Chunk, tail: Chunk) -> None:
        """Replace an unsent chunk by its first rows and the rest; money that it holds is split, too."""
        with self._begin() as connection:
            self._check(connection, lease)
            connection.execute(delete(t.chunks).where(t.chunks.c.id == chunk.id, t.chunks.c.state == PLANNED))
            connection.execute(insert(t.chunks).values(_chunk_row(head)))
            connection.execute(insert(t.chunks).values(_chunk_row(tail)))
            if connection.execute(delete(t.reservations).where(t.reservations.c.chunk_id == chunk.id)).rowcount:
                for part in (head, tail):
                    connection.execute(insert(t.reservations).values(_reservation_row(part)))

    def _move(self, connection: Connection, chunk_id: str, before: Iterable[str], after: str, **values: Any) -> None:
        here = (t.chunks.c.id == chunk_id) & t.chunks.c.state.in_(list(before))
        moved = connection.execute(update(t.chunks).where(here).values(state=after, updated_at=now_us(), **values))
        if moved.rowcount != 1:
            message = f"chunk {chunk_id} is not in one of the states {', '.join(before)}, so it cannot become {after}."
            raise LedgerError(message)

    # --- sending -------------------------------------------------------------------------------

    def record_intent(self, lease: Lease, intent: Intent) -> bool:
        """Write the intent to send a chunk, if nothing speaks against it.

        Returns False while another create of the same account and size is of unknown fate: the
        two could not be told apart in a provider's list that carries no names.
        """
        rival = (
            select(func.count()).select_from(t.intents.join(t.chunks, t.chunks.c.id == t.intents.c.chunk_id))
            .where(
                t.intents.c.account == intent.account, t.intents.c.requests == intent.requests,
                t.chunks.c.state == UNCLEAR, t.chunks.c.id != intent.chunk_id,
            )
        )
        with self._begin() as connection:
            self._check(connection, lease)
            if connection.execute(rival).scalar_one():
                return False
            self._move(connection, intent.chunk_id, (PLANNED, UNCLEAR), UNCLEAR)
            connection.execute(delete(t.intents).where(t.intents.c.chunk_id == intent.chunk_id))
            row = {name: getattr(intent, name) for name in Intent.__slots__}
            connection.execute(insert(t.intents).values(row))
            return True

    def withdraw_intent(self, lease: Lease, chunk_id: str) -> None:
        """Take an intent back: it is certain that nothing was accepted."""
        with self._begin() as connection:
            self._check(connection, lease)  # else it may be a successor's intent by now
            self._move(connection, chunk_id, (UNCLEAR,), PLANNED)
            connection.execute(delete(t.intents).where(t.intents.c.chunk_id == chunk_id))

    def return_chunk(self, lease: Lease, chunk_id: str) -> None:
        """Note that the provider took a chunk and let none of it run: it is to be sent again, its money stays reserved."""
        with self._begin() as connection:
            self._check(connection, lease)
            self._move(connection, chunk_id, (SUBMITTED,), PLANNED, batch_id=None)

    def hold(self, lease: Lease, chunk_id: str) -> None:
        """Note that nobody can tell any more whether a chunk was accepted; its rows and its money are held."""
        with self._begin() as connection:
            self._check(connection, lease)
            self._move(connection, chunk_id, (UNCLEAR,), HELD)

    def adopt_held(self, lease: Lease, chunk: Chunk, batch_id: str, account: str, status: str) -> None:
        """Settle a held chunk: it is that batch. Its run is open again, so that the next one lands it."""
        with self._begin() as connection:
            self._check(connection, lease)
            self._move(connection, chunk.id, (HELD,), UNCLEAR)
            self._add_batch(connection, chunk, batch_id, account, status)
            connection.execute(update(t.runs).where(t.runs.c.id == chunk.run_id).values(state="open"))

    def drop_held(self, lease: Lease, chunk_id: str) -> None:
        """Settle a held chunk: it never was accepted. Its rows may be planned again, its money is free."""
        with self._begin() as connection:
            self._check(connection, lease)
            self._move(connection, chunk_id, (HELD,), DROPPED)
            connection.execute(delete(t.reservations).where(t.reservations.c.chunk_id == chunk_id))

    def intent(self, chunk_id: str) -> Intent:
        """Return the intent of a chunk that was sent or is of unknown fate."""
        with self._begin(reading=True) as connection:
            row = connection.execute(select(t.intents).where(t.intents.c.chunk_id == chunk_id)).one()
            return Intent(**{name: getattr(row, name) for name in Intent.__slots__})

    def record_batch(self, lease: Lease, chunk: Chunk, batch_id: str, account: str, status: str) -> None:
        """Write the batch id; the chunk is at the provider.

        A run that lost the dataset may not: its successor finds the batch by looking.
        """
        with self._begin() as connection:
            self._check(connection, lease)
            self._add_batch(connection, chunk, batch_id, account, status)

    def _add_batch(self, connection: Connection, chunk: Chunk, batch_id: str, account: str, status: str) -> None:
        row = {
            "batch_id": batch_id, "chunk_id": chunk.id, "provider": chunk.provider,
            "account": account, "status": status, "submitted_at": now_us(),
        }
        self._move(connection, chunk.id, (UNCLEAR,), SUBMITTED, batch_id=batch_id)
        connection.execute(insert(t.batches).values(row))

    def known_batches(self, batch_ids: Iterable[str]) -> set[str]:
        """Return those of `batch_ids` that already belong to a chunk."""
        query = select(t.batches.c.batch_id).where(t.batches.c.batch_id.in_(list(batch_ids)))
        with self._begin(reading=True) as connection:
            return set(connection.execute(query).scalars())

    def record_look(self, batch_id: str, status: str, done: int | None, *, ended: bool) -> None:
        """Write what a look at a batch found that was not known yet."""
        values: dict[str, Any] = {"status": status, "requests_done": done, "looked_at": now_us()}
        if ended:
            values["ended_at"] = now_us()
        with self._begin() as connection:
            connection.execute(update(t.batches).where(t.batches.c.batch_id == batch_id).values(values))

    def batches_of(self, run_id: str) -> list[Row[Any]]:
        """Return the batches of a run, oldest first."""
        query = (
            select(t.batches, t.chunks.c.state, t.chunks.c.start, t.chunks.c.stop)
            .join(t.chunks, t.chunks.c.id == t.batches.c.chunk_id)
            .where(t.chunks.c.run_id == run_id).order_by(t.batches.c.submitted_at)
        )
        with self._begin(reading=True) as connection:
            return list(connection.execute(query).all())

    # --- money and landing -----------------------------------------------------------------------

    def reserve(self, lease: Lease, chunk: Chunk, limit: int | None) -> int | None:
        """Reserve a chunk's bound; None on success, else what is left of the limit.

        One transaction reads what is spent or in flight and adds to it, so that chunks that are
        guarded at the same time cannot both take the last dollar.
        """
        with self._begin() as connection:
            self._check(connection, lease)
            done = connection.execute(select(t.reservations.c.chunk_id).where(t.reservations.c.chunk_id == chunk.id)).first()
            if done is not None:
                return None
            spent = _committed(connection, chunk.run_id)
            if limit is not None and spent + (chunk.bound or 0) > limit:
                return max(limit - spent, 0)
            connection.execute(insert(t.reservations).values(_reservation_row(chunk)))
            return None

    def release(self, chunk_id: str) -> None:
        """Give back a reservation of a chunk that was not sent."""
        with self._begin() as connection:
            connection.execute(delete(t.reservations).where(t.reservations.c.chunk_id == chunk_id, t.reservations.c.settled.is_(None)))

    def collect(
        self, lease: Lease, chunk: Chunk, tallies: Mapping[str, Tally], overhead: int, retried: Mapping[str, int] | None = None
    ) -> None:
        """Settle a chunk from its usage: the results are on disk, and its outcomes are known.

        `retried` counts its rows by the outcome that they had in an earlier round of the run.
        """
        cost = sum(tally.cost or 0 for tally in tallies.values()) + overhead
        with self._begin() as connection:
            self._check(connection, lease)
            self._move(connection, chunk.id, (PLANNED, SUBMITTED, COLLECTED), COLLECTED)
            connection.execute(delete(t.outcomes).where(t.outcomes.c.chunk_id == chunk.id))
            before = retried or {}
            for outcome in tallies.keys() | before.keys():
                tally = tallies.get(outcome, Tally())
                row = {"chunk_id": chunk.id, "run_id": chunk.run_id, "outcome": outcome, "retried": before.get(outcome, 0)}
                row |= {name: getattr(tally, name) for name in Tally.__slots__}
                connection.execute(insert(t.outcomes).values(row))
            settled = {"settled": cost, "overhead": overhead, "settled_at": now_us()}
            connection.execute(update(t.reservations).where(t.reservations.c.chunk_id == chunk.id).values(settled))

    def check_lease(self, lease: Lease) -> None:
        """Raise LeaseError unless the lease is still ours; called right before files change."""
        with self._begin() as connection:
            self._check(connection, lease)

    def land(self, lease: Lease, chunk_id: str, superseded: int) -> None:
        """Close the commit of a chunk: its rows are in the dataset, older ones are gone."""
        with self._begin() as connection:
            self._check(connection, lease)
            self._move(connection, chunk_id, (COLLECTED,), LANDED)
            connection.execute(update(t.reservations).where(t.reservations.c.chunk_id == chunk_id).values(superseded=superseded))

    def money(self, run_id: str) -> tuple[int, int]:
        """Return (settled, reserved and still in flight) of a run."""
        query = select(t.reservations.c.settled, t.reservations.c.reserved).where(t.reservations.c.run_id == run_id)
        with self._begin(reading=True) as connection:
            rows = connection.execute(query).all()
        return sum(row.settled or 0 for row in rows), sum(row.reserved for row in rows if row.settled is None)

    def outcomes(self, run_id: str) -> dict[str, Tally]:
        """Return rows, tokens and money per outcome of a run.

        A row counts once, by the outcome of its last round; tokens and money are those of all rounds.
        """
        query = select(t.outcomes).where(t.outcomes.c.run_id == run_id)
        found: dict[str, Tally] = {}
        with self._begin(reading=True) as connection:
            for row in connection.execute(query):
                tally = Tally(row.rows - row.retried, row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cost)
                found[row.outcome] = found.get(row.outcome, Tally()) + tally
        return found


def _machine() -> str:
    """Name this machine, boot and process namespace: within it, a process id tells dead from alive."""
    facts = [socket.gethostname()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8])
        facts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(facts)


def _is_dead(holder: str) -> bool:
    """Whether the holder of a lease was a process of this machine that is gone."""
    process, _, machine = holder.removeprefix("process ").partition(" on ")
    if machine != _machine() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _committed(connection: Connection, run_id: str) -> int:
    query = select(t.reservations.c.settled, t.reservations.c.reserved).where(t.reservations.c.run_id == run_id)
    # summed here: a database's own sum ends at 2^63 picodollars, 9 million dollars
    return sum(row.reserved if row.settled is None else row.settled for row in connection.execute(query))


def _chunk_row(chunk: Chunk) -> dict[str, Any]:
    return {name: getattr(chunk, name) for name in Chunk.__slots__} | {"updated_at": now_us()}


def _reservation_row(chunk: Chunk) -> dict[str, Any]:
    return {"chunk_id": chunk.id, "run_id": chunk.run_id, "reserved": chunk.bound or 0, "reserved_at": now_us()}


def _chunk(row: Row[Any]) -> Chunk:
    return Chunk(**{name: getattr(row, name) for name in Chunk.__slots__})


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's `begin` event opens transactions, not the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=60000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # read-then-write must be one step among processes, so a transaction that writes takes the lock first
    reading = connection.get_execution_options().get("batchata_reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
