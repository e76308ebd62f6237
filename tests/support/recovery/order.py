"""The order of a trace: a fact is durable before it is recorded, and recorded before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.recovery.trace import Event, Kind

_NEVER = 10**9


class Order:
    """One trace of runs over the dataset in `root`, and the errors in its order."""

    def __init__(self, events: list[Event], root: Path) -> None:
        self._events = events
        self._own = root / "_batchata"
        self._data = root / "data"
        self.problems: list[str] = []
        self.chunks = list(
            dict.fromkeys(
                event.what.removeprefix("intents ")
                for event in events
                if event.kind == "send"
                or (event.kind == "begins" and event.what.startswith("intents "))
            )
        )
        self.sends = sum(event.kind == "send" for event in events)
        self.older_parts_changed = 0
        self.merged_away = 0

    def checked(self) -> list[str]:
        """Return everything that is out of order."""
        for event in self._of("committed"):
            if event.what.startswith("open "):
                self._plan(event.what.split()[1])
        for chunk in self.chunks:
            self._sending(chunk)
            self._landing(chunk)
        self._superseding()
        return self.problems

    def nameless(self) -> list[str]:
        """Return the new folders without a durable name when the first intent was in the ledger."""
        first = next(
            i
            for i, event in enumerate(self._events)
            if event.kind == "begins" and event.what.startswith("intents ")
        )
        made = [
            (i, Path(event.what))
            for i, event in enumerate(self._events[:first])
            if event.kind == "mkdir"
        ]
        # a plan may be made anew
        folders = [(i, path) for i, path in made if self._own / "runs" not in (path, *path.parents)]
        return [str(path) for i, path in folders if self._at("folder", path.parent, i) > first]

    # --- finding -------------------------------------------------------------------------------

    def _of(self, kind: Kind) -> Iterator[Event]:
        return (event for event in self._events if event.kind == kind)

    def _at(self, kind: Kind, what: object, after: int = -1) -> int:
        """Return when something first happened after a moment.

        Never is later than everything.
        """
        moments = (
            i
            for i, event in enumerate(self._events)
            if i > after and (event.kind, event.what) == (kind, str(what))
        )
        return next(moments, _NEVER)

    def _durable(self, path: Path, after: int = -1) -> int:
        """Return when a file became durable under its name.

        By then all of it is fsynced, it is renamed, and its folder is fsynced.
        """
        renamed = self._at("rename", path, after)
        if renamed == _NEVER:
            return _NEVER
        move = self._events[renamed]
        fsynced = [
            event
            for event in self._events[:renamed]
            if (event.kind, event.what) == ("fsync", move.source)
        ]
        if not fsynced or fsynced[-1].size != move.size:
            return _NEVER
        return self._at("folder", path.parent, renamed)

    def _before(self, first: int, then: int, what: str) -> None:
        if first == _NEVER or first > then:
            self.problems.append(what)

    # --- rules ---------------------------------------------------------------------------------

    def _plan(self, run: str) -> None:
        """The plan is on disk before the ledger has it, and stays until the run is closed."""
        folder, opened = self._own / "runs" / run, self._at("begins", f"open {run}")
        for name in ("plan.arrow", "plan.bodies.jsonl", "local.arrow", "local.bodies.jsonl"):
            self._before(
                self._durable(folder / name),
                opened,
                f"{name} is not durable before the ledger fixes the plan",
            )
            gone = self._at("unlink", folder / name)
            self._before(
                self._at("committed", f"closed {run}"),
                gone,
                f"{name} is deleted before the ledger closes the run",
            )

    def _sending(self, chunk: str) -> None:
        """Manifest and request file, the ledger's intent, its file, the send, the batch id."""
        intent = self._own / "intents" / f"{chunk}.json"
        about_to_intend = self._at("rename", intent)
        intended = self._at("begins", f"intents {chunk}")
        sent, answered = self._at("send", chunk), self._at("answer", chunk)
        for name, path in (
            ("manifest", self._own / f"intents/{chunk}.arrow"),
            ("request file", self._own / f"requests/{chunk}.jsonl"),
        ):
            self._before(
                self._durable(path),
                intended,
                f"the {name} is not durable before the ledger's intent",
            )
        self._before(
            self._at("committed", f"intents {chunk}"),
            about_to_intend,
            "the ledger's intent is not committed before its file appears",
        )
        self._before(
            self._durable(intent), sent, "the intent's file is not durable before the send"
        )
        self._before(sent, answered, "a create has an answer, but no first byte")
        self._before(
            answered,
            self._at("begins", f"batches {chunk}"),
            "the batch id is recorded before the answer came",
        )

    def _landing(self, chunk: str) -> None:
        """Results, the ledger's outcomes, the commit record, the part, then `landed`."""
        collected = self._at("begins", f"collected {chunk}")
        landed = self._at("begins", f"landed {chunk}")
        record, part = self._own / "commits" / f"{chunk}.json", self._data / f"part-{chunk}.parquet"
        known, appears = self._at("committed", f"batches {chunk}"), self._at("rename", part)
        results = [
            Path(event.what)
            for event in self._of("rename")
            if event.what.startswith(f"{self._own}/responses/{chunk}.")
        ]
        if not results:
            self.problems.append("there are no results")
        for path in results:
            self._before(
                known,
                self._at("rename", path),
                "results are there before the batch id is committed",
            )
            self._before(
                self._durable(path),
                collected,
                "the results are not durable before the ledger counts them",
            )
        self._before(
            self._at("committed", f"collected {chunk}"),
            appears,
            "the part appears before its money is settled",
        )
        self._before(
            self._durable(record),
            appears,
            "the commit record is not durable before the part appears",
        )
        self._before(
            self._durable(part), landed, "the part is not durable before the ledger says landed"
        )
        closed = self._at("rename", record, self._at("committed", f"landed {chunk}"))
        self._before(
            self._at("committed", f"landed {chunk}"),
            closed,
            "the commit record is closed before the ledger says landed",
        )

    def _superseding(self) -> None:
        """Older parts change only between the new part's durability and `landed`, and durably.

        Those that were merged are deleted once the part is durable that took them over.
        """
        for i, event in enumerate(self._events):
            if (
                event.kind not in ("rename", "unlink")
                or Path(event.what).parent != self._data
                or self._is_new(i)
            ):
                continue
            self.older_parts_changed += 1
            own = [
                j for j in range(i) if self._events[j].thread == event.thread and self._is_new(j)
            ]
            chunk = Path(self._events[own[-1]].what).stem.removeprefix("part-") if own else ""
            newer = self._data / f"part-{chunk}.parquet"
            if chunk.startswith("merged-"):
                merged = self._durable(Path(self._events[own[-1]].what), own[-1] - 1)
                self._before(
                    merged, i, "a part is deleted before what it was merged into is durable"
                )
                self.merged_away += 1
                continue
            landed = self._at("begins", f"landed {chunk}")
            self._before(
                self._durable(newer), i, "an older part changes before the new one is durable"
            )
            done = (
                self._durable(Path(event.what), i - 1)
                if event.kind == "rename"
                else self._at("folder", self._data, i)
            )
            self._before(
                done, landed, "an older part's change is not durable before the ledger says landed"
            )

    def _is_new(self, index: int) -> bool:
        """Return whether an event is a new part's appearance.

        An older one that is rewritten has a version in its name.
        """
        event = self._events[index]
        return (
            event.kind == "rename"
            and Path(event.what).parent == self._data
            and ".v" not in Path(event.what).name
        )
