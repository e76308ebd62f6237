"""A trace of what one process makes durable and sends, in order.

It has fsyncs, renames, ledger commits and creates.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest.mock import patch

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect

if TYPE_CHECKING:
    from collections.abc import Generator

Kind = Literal[
    "fsync",
    "folder",
    "rename",
    "unlink",
    "mkdir",
    "begins",
    "committed",
    "send",
    "half",
    "sent",
    "answer",
]
_CREATE = re.compile(rb"^POST \S*/batches ")
_TOKEN = re.compile(rb'(?:"custom_id": ?"|"batchata_token": ?")([a-z0-9]{20})')
_PRAGMAS = ("synchronous", "journal_mode")


@dataclass
class Event:
    """One thing that happened.

    `what` is a path (of `rename`: the new one), the fact that a ledger commit makes true ("intent
    <chunk>"), or the chunk of a create.
    """

    kind: Kind
    what: str
    thread: int = 0
    source: str = ""  # of a rename: the old path
    size: int = -1  # of the file, when it was fsynced or renamed


@dataclass
class Trace:
    """Events in their order, and the settings of each connection that committed."""

    events: list[Event] = field(default_factory=list[Event])
    pragmas: set[tuple[Any, ...]] = field(default_factory=set[tuple[Any, ...]])

    def add(self, kind: Kind, what: object, **more: Any) -> Event:
        """Append an event of the calling thread."""
        made = Event(kind, str(what), threading.get_ident(), **more)
        self.events.append(made)
        return made


@contextmanager
def recorded(trace: Trace | None = None) -> Generator[Trace, None, None]:
    """Record what this process does, in all its threads, until the block ends."""
    trace = trace or Trace()
    with ExitStack() as patches:
        _record_files(trace, patches)
        _record_creates(trace, patches)
        _record_commits(trace, patches)
        yield trace


def _record_files(trace: Trace, patches: ExitStack) -> None:
    fsync = os.fsync
    replace = os.replace
    unlink = os.unlink
    mkdir = os.mkdir

    def fsynced(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        size = os.fstat(descriptor).st_size
        fsync(descriptor)
        trace.add("folder" if path.is_dir() else "fsync", path, size=size)

    def replaced(source: str | Path, target: str | Path, **more: Any) -> None:
        size = Path(source).stat().st_size
        trace.add("rename", target, source=str(source), size=size)
        replace(source, target, **more)

    def unlinked(path: str | Path, *, dir_fd: int | None = None) -> None:
        folder = Path() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
        trace.add("unlink", folder / path)
        unlink(path, dir_fd=dir_fd)

    def made(path: str | Path, *more: Any, **named: Any) -> None:
        mkdir(path, *more, **named)
        trace.add("mkdir", path)

    for name, ours in (
        ("fsync", fsynced),
        ("replace", replaced),
        ("unlink", unlinked),
        ("mkdir", made),
    ):
        patches.enter_context(patch.object(os, name, ours))


def _record_creates(trace: Trace, patches: ExitStack) -> None:
    """Record four moments of each create.

    They are before its first byte and its second block, after its last, and its answer's arrival.
    """
    send, receive = socket.socket.send, socket.socket.recv
    open_creates: dict[int, Event] = {}  # by thread, which has one call at a time

    def sent(self: socket.socket, data: Any, *more: int) -> int:
        thread, block = threading.get_ident(), bytes(data)
        if _CREATE.match(block):
            open_creates[thread] = trace.add("send", "")
        elif thread in open_creates:
            trace.add("half", "")
        count = send(self, data, *more)
        made = open_creates.get(thread)
        if made is not None and not made.what and (token := _TOKEN.search(block)):
            made.what = token[1].decode()
        return count

    def received(self: socket.socket, *more: int) -> bytes:
        made = open_creates.pop(threading.get_ident(), None)
        if made is not None:
            trace.add("sent", made.what)
        block = receive(self, *more)
        if made is not None:
            trace.add("answer", made.what)
        return block

    patches.enter_context(patch.object(socket.socket, "send", sent))
    patches.enter_context(patch.object(socket.socket, "recv", received))


def _record_commits(trace: Trace, patches: ExitStack) -> None:
    """Record before and after each commit which facts it makes true."""
    commit, own = DefaultDialect.do_commit, threading.local()

    def wrote(
        _connection: Any, _cursor: Any, _statement: Any, _parameters: Any, context: Any, _many: bool
    ) -> None:
        if context.compiled is not None and (context.isinsert or context.isupdate):
            table = context.compiled.statement.table.name
            own.facts = [
                *getattr(own, "facts", ()),
                *(_fact(table, values) for values in context.compiled_parameters),
            ]

    def committed(self: DefaultDialect, connection: Any) -> None:
        facts, own.facts = [fact for fact in getattr(own, "facts", ()) if fact], []
        if facts and self.name == "sqlite":
            trace.pragmas.add(
                tuple(connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS)
            )
        for fact in facts:
            trace.add("begins", fact)
        commit(self, connection)
        for fact in facts:
            trace.add("committed", fact)

    patches.enter_context(patch.object(DefaultDialect, "do_commit", committed))
    event.listen(Engine, "after_cursor_execute", wrote)
    patches.callback(event.remove, Engine, "after_cursor_execute", wrote)


def _fact(table: str, values: dict[str, Any]) -> str | None:
    """Return the fact in a written row, as far as the order depends on it."""
    match table, values.get("state"):
        case (("intents" | "batches" | "reservations"), _) if "chunk_id" in values:
            return f"{table} {values['chunk_id']}"
        case "batches", _:
            return f"looked {values['looked']}"
        case "chunks", ("collected" | "landed") as state:
            # several: those that a recovery begins again
            return f"{state} {values.get('moved', 'several')}"
        case "runs", ("planning" | "open" | "closed") as state:
            return f"{state} {values.get('of_run') or values.get('id_1') or values['id']}"
        case "datasets", _ if "holder" in values:
            return "held" if values["holder"] else "released"
        case _:
            return None
