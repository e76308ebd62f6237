"""A block of source rows compared with the dataset: landed, in flight, changed, all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from batchata_tasks.common.canonical import key_digests
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.row_hashes import row_hashes
from batchata_tasks.planning.fingerprint import INPUT_BYTES, changed, fingerprint, with_schema
from batchata_tasks.planning.key_arrays import Keys
from batchata_tasks.planning.legacy import legacy_values
from batchata_tasks.planning.row_block import RowBlock
from batchata_tasks.types.ids import row_ids
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import pyarrow as pa
    from numpy.typing import NDArray

    from batchata_tasks.planning.builder import Builder
    from batchata_tasks.planning.key_arrays import InFlight
    from batchata_tasks.planning.landed import Landed, LandedRow

_OLD = "v1"
_Halves = tuple["NDArray[np.uint64]", "NDArray[np.uint32]"]


class ComparedRows:
    """The rows of one block beside the dataset's.

    `in_flight`, `held` and `planned` are arrays of yes and no; `canonical` has the rows' canonical
    keys, and `stored` their keys and carried columns as the dataset has them. `version` is that of
    the fingerprints that rows get now.
    """

    def __init__(
        self,
        rows: RowBlock,
        stored: pa.RecordBatch,
        builder: Builder,
        landed: Landed,
        in_flight: InFlight,
        legacy: Mapping[str, pa.DataType],
        version: str,
    ) -> None:
        self._version = version
        self._rows, self._builder, self._landed = rows, builder, landed
        self._legacy = legacy
        self.stored = stored
        self.canonical = keys_of(stored, rows.key)
        self.keys = Keys.of(key_digests(self.canonical))
        self._prints = builder.fingerprints(rows)
        self._at = landed.keys.find(self.keys)
        self._flying, self._flying_at = in_flight, in_flight.find(self.keys)
        self.in_flight, self.held = self._flying_at >= 0, in_flight.held(self._flying_at)
        self.planned = in_flight.planned(self._flying_at)
        self._inputs = self._prints.inputs
        # own inputs of rows of which a part cannot be read; they count as unchanged
        self._unread = dict[int, bytes]()
        self._is_old = np.zeros(len(rows), np.bool_)
        self._asked_under = dict[int, str]()  # the part of another response model, by place
        self._is_same = self._compared()

    def _compared(self) -> NDArray[np.bool_]:
        """Return which rows have the fingerprint with which they landed.

        Of a row that landed under version 1 the input may be read as that did; then the row keeps
        its fingerprint, so that its attempts go on counting.
        """
        is_landed = self._at >= 0
        if not is_landed.any():
            return is_landed
        landed, others = self._landed, self._landed.column("others", self._at)
        for i in self._prints.unknown:
            if is_landed[i]:
                self._unread[i] = self._inputs[i]
                self._inputs[i] = landed.input(int(self._at[i]))
        same_input = is_landed & self._has_input(self._inputs)
        from_old = is_landed & landed.version(_OLD)[others]
        if (unlike := from_old & ~same_input).any():
            old, is_read = self._read_as_v1()
            as_before = unlike & is_read & self._has_input(old)
            for i in np.flatnonzero(as_before).tolist():
                self._inputs[i] = old[i]
            same_input |= as_before
        self._is_old = from_old & same_input
        now, then = (
            np.array(landed.others(version, self._prints.others))
            for version in (self._version, _OLD)
        )
        return same_input & (others == np.where(self._is_old, then, now))

    def _read_as_v1(self) -> tuple[list[bytes], NDArray[np.bool_]]:
        """Return the inputs that version 1 gave the rows, and which rows it could read so."""
        batch, fits = legacy_values(self._rows.batch, self._legacy)
        rows = RowBlock(batch, self._rows.numbers, self._rows.key)
        return self._builder.inputs_v1(rows), fits.to_numpy(zero_copy_only=False)

    def _has_input(self, inputs: list[bytes]) -> NDArray[np.bool_]:
        high, low = _halves(inputs)
        column = self._landed.column
        same = column("input_high", self._at) == high
        return same & (column("input_low", self._at) == low)

    @property
    def landed_places(self) -> NDArray[np.int64]:
        """The places of the rows among the landed ones; -1 if a row has not landed."""
        return self._at

    def up_to_date(self, refresh_before: int | None) -> NDArray[np.bool_]:
        """Return which rows are up to date and not on their way."""
        if not self._is_same.any():
            return self._is_same
        column = self._landed.column
        found = self._is_same & ~self.in_flight
        found &= column("status", self._at) == self._landed.status(Outcome.SUCCEEDED)
        if refresh_before is not None:
            found &= column("enriched_at", self._at) >= refresh_before
        return found

    def carried_changed(self, carried: list[pa.Field]) -> NDArray[np.bool_]:
        """Return which of the landed rows have carried columns that changed."""
        is_landed = self._at >= 0
        if not carried or not is_landed.any():
            return np.zeros(len(self._rows), np.bool_)
        now = row_hashes(self.stored, carried)
        return is_landed & (self._landed.column("carried", self._at) != now)

    def landed(self, place: int) -> LandedRow | None:
        """Return the dataset's row of a key."""
        return None if self._at[place] < 0 else self._landed.row(int(self._at[place]))

    def changed_in_flight(self, place: int) -> list[str]:
        """Return in which parts a row in flight asks something else by now (see `changed`)."""
        sent = self._flying.fingerprint(int(self._flying_at[place]))
        parts = changed(sent, self.fingerprint(place))
        # a document that is gone by now was there when it was sent
        return [part for part in parts if part != "input" or place not in self._prints.unknown]

    def part(self, place: int) -> str:
        """Return the part that holds a landed row."""
        return self._landed.part(int(self._at[place]))

    def unread(self, place: int) -> bool:
        """Whether a part of a landed row's input cannot be read, so that it counts as unchanged."""
        return place in self._unread

    def fingerprint(self, place: int, *, sent: bool = False) -> str:
        """Return the fingerprint of a row's base request, as it is `sent` or compared."""
        version = _OLD if self._is_old[place] else self._version
        own = self._unread.get(place) if sent else None
        text = fingerprint((own or self._inputs[place]).hex(), self._other_parts(place), version)
        other = self._asked_under.get(place)
        return text if other is None else with_schema(text, other)

    def claimed(
        self, claimed: AbstractSet[str], dataset_id: str, reread: Sequence[str] = ()
    ) -> NDArray[np.bool_]:
        """Return which rows are claimed, by the ids of their requests.

        One that was sent under version 1, or under one of the response models in `reread` (parts of
        fingerprints), keeps its fingerprint.
        """
        found = np.zeros(len(self._rows), np.bool_)
        if not claimed:
            return found
        now = [self.fingerprint(i) for i in range(len(found))]
        inputs, is_read = self._read_as_v1()
        then = [fingerprint(one.hex(), self._other_parts(i), _OLD) for i, one in enumerate(inputs)]
        for prints in (now, then):
            ids = row_ids(dataset_id, self.canonical, prints)
            for i in [i for i, one in enumerate(ids) if one in claimed]:
                if prints is then and not is_read[i]:
                    continue
                found[i] = True
                if prints is then:
                    self._is_old[i], self._inputs[i] = True, inputs[i]
        for part in reread:
            ids = row_ids(dataset_id, self.canonical, [with_schema(text, part) for text in now])
            for i in [i for i, one in enumerate(ids) if one in claimed and not found[i]]:
                found[i], self._asked_under[i] = True, part
        return found

    def _other_parts(self, place: int) -> str:
        others = self._prints.others
        return others[0] if len(others) == 1 else others[place]


def _halves(inputs: list[bytes]) -> _Halves:
    """Return inputs as numbers of their first eight bytes, and of their last four."""
    table = np.frombuffer(b"".join(inputs), np.uint8).reshape(-1, INPUT_BYTES)
    return table[:, :8].copy().view(">u8")[:, 0], table[:, 8:].copy().view(">u4")[:, 0]
