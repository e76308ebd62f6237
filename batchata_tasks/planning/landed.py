"""The rows of a dataset, as planning needs them: sorted by key, on disk.

They are read once, as columns, and sorted by the digests of their keys in files of the plan's
folder, so that memory stays small for any size of table. Then each block of the source looks up its
keys at once. What only a row that is sent again needs stays in its file until then.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchata_tasks.common.canonical import key_digests
from batchata_tasks.common.money import pico_from_usd
from batchata_tasks.dataset.columns import MISSING_SINCE, UNKNOWN_COST, keys_of, picodollars
from batchata_tasks.dataset.row_hashes import row_hashes
from batchata_tasks.planning.fingerprint import (
    INPUT_BYTES,
    REHEARSED_VERSION,
    VERSIONS,
)
from batchata_tasks.planning.key_arrays import Keys, shares
from batchata_tasks.planning.texts import Codes, Texts
from batchata_tasks.types.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from batchata_tasks.dataset.parts import Dataset
    from batchata_tasks.spec.parts import Pilot

STATE_COLUMNS = (
    "_fingerprint",
    "_status",
    "_error",
    "_attempts",
    "_input_tokens",
    "_output_tokens",
    "_cache_read_tokens",
    "_cost_usd",
    "_enriched_at",
)
_NUMBERS = STATE_COLUMNS[3:7]
# of each row; `input` is that of its fingerprint, in two, `others` a number for the rest of it
_COLUMNS = {
    "high": "<u8",
    "low": "<u8",
    "enriched_at": "<i8",
    "input_high": "<u8",
    "input_low": "<u4",
    "others": "<i4",
    "carried": "<u8",
    "status": "<i4",
    "marked": "u1",
    "part": "<i4",
    "error": "<i8",
    "cost": "<i8",
    **dict.fromkeys(_NUMBERS, "<i8"),
}
_NO_DIGIT, _SIXTEEN = 255, np.uint8(16)
_HEX = np.full(256, _NO_DIGIT, np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


class LandedRow(NamedTuple):
    """One row of the dataset; its cost is in picodollars."""

    part: str  # the part that holds it
    fingerprint: str
    status: str
    error: str | None
    attempts: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cost: int | None
    enriched_at: int  # microseconds since 1970


@dataclass(frozen=True, slots=True)
class Answered:
    """How some landed rows turned out; their cost is in picodollars, None if it is unknown."""

    rows: int
    usable: int
    cost: int | None

    def keep_to(self, pilot: Pilot) -> bool:
        """Whether they are what a pilot is sent to find out: usable, and not too dear."""
        if not self.usable:
            return False
        most, most_usd = pilot.max_invalid_share, pilot.max_cost_per_row_usd
        if most is not None and self.rows - self.usable > most * self.rows:
            return False
        if most_usd is None:
            return True
        return self.cost is not None and self.cost <= pico_from_usd(most_usd) * self.rows


class Landed:
    """The landed rows, in the order of their keys."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self._folder, self._dataset = folder, dataset
        self._parts, self._statuses, self._others = Codes(), Codes(), Codes()
        self._errors = Texts(folder / "errors.bin")
        self.doubled: dict[str, set[bytes]] = {}
        self._columns: dict[str, NDArray[Any]] = {}
        rows = self._read()
        self._sort(rows)
        self.keys = Keys(self._columns["high"], self._columns["low"])

    def close(self) -> None:
        """Delete the files."""
        self._columns.clear()
        self._errors.close()
        for path in self._folder.glob("*.landed"):
            path.unlink()

    def __len__(self) -> int:
        return len(self.keys.high)

    def column(self, name: str, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return a column's values at some places; what it has at -1 means nothing."""
        return self._columns[name][places]

    @property
    def marked(self) -> NDArray[np.bool_]:
        """Which rows are marked as missing in the source."""
        return self._columns["marked"].astype(np.bool_)

    def status(self, text: str) -> int:
        """Return the number that stands for a status."""
        return self._statuses.of(text)

    def others(self, version: str, texts: Iterable[str]) -> list[int]:
        """Return the numbers that stand for the other parts of fingerprints of a version."""
        return [self._others.of(f"{version}:{text}") for text in texts]

    def version(self, version: str) -> NDArray[np.bool_]:
        """Return, for each number of other parts, whether it is of a version."""
        return np.array([text.startswith(f"{version}:") for text in self._others.texts], np.bool_)

    def answered(self, others: str, *, rehearsal: bool) -> Answered:
        """Return how the rows with these other parts of a fingerprint turned out.

        What an emulator answered tells about rehearsals alone.
        """
        versions = [one for one in VERSIONS if (one == REHEARSED_VERSION) == rehearsal]
        numbers = [number for version in versions for number in self.others(version, [others])]
        same = np.isin(self._columns["others"], numbers)
        succeeded = self._columns["status"] == self.status(Outcome.SUCCEEDED)
        costs = self._columns["cost"][same]
        cost = None if (costs == UNKNOWN_COST).any() else int(costs.sum())
        return Answered(len(costs), int((same & succeeded).sum()), cost)

    def part(self, place: int) -> str:
        """Return the part that holds a row."""
        return self._parts.texts[int(self._columns["part"][place])]

    def input(self, place: int) -> bytes:
        """Return the input of a row's fingerprint."""
        high, low = (int(self._columns[f"input_{half}"][place]) for half in ("high", "low"))
        return high.to_bytes(8, "big") + low.to_bytes(4, "big")

    def row(self, place: int) -> LandedRow:
        """Return one row."""
        values = {name: int(column[place]) for name, column in self._columns.items()}
        version, _, others = self._others.texts[values["others"]].partition(":")
        if version in VERSIONS:
            others = f"{version}:{self.input(place).hex()}.{others}"
        return LandedRow(
            self._parts.texts[values["part"]],
            others,
            self._statuses.texts[values["status"]],
            self._errors.at(values["error"]),
            values["_attempts"],
            values["_input_tokens"],
            values["_output_tokens"],
            values["_cache_read_tokens"],
            None if values["cost"] == UNKNOWN_COST else values["cost"],
            values["enriched_at"],
        )

    def _read(self) -> int:
        """Write the columns of all rows, in the order of the parts; return how many there are."""
        rows, names = 0, [*self._dataset.key, *self._dataset.carried, *STATE_COLUMNS]
        names.append(MISSING_SINCE.name)
        with ExitStack() as files:
            streams = {
                name: files.enter_context((self._folder / f"{name}.unsorted").open("wb"))
                for name in _COLUMNS
            }
            for part, batch in self._dataset.rows(names):
                self._dataset.check_key(batch.schema)
                rows += batch.num_rows
                for name, values in self._columns_of(part, batch).items():
                    streams[name].write(np.ascontiguousarray(values, _COLUMNS[name]).tobytes())
        return rows

    def _columns_of(self, part: str, batch: pa.RecordBatch) -> dict[str, NDArray[Any]]:
        keys = Keys.of(key_digests(keys_of(batch, self._dataset.key)))
        input_high, input_low, others = self._fingerprints(batch.column("_fingerprint"))
        return {
            "high": keys.high,
            "low": keys.low,
            "enriched_at": _integers(batch.column("_enriched_at").cast(pa.int64())),
            "input_high": input_high,
            "input_low": input_low,
            "others": others,
            "carried": row_hashes(batch, self._dataset.carried_fields),
            "status": self._statuses.of_all(batch.column("_status")),
            "marked": _is_marked(batch),
            "part": np.full(batch.num_rows, self._parts.of(part)),
            "error": self._errors.add(batch.column("_error")),
            "cost": picodollars(batch.column("_cost_usd")),
            **{name: _integers(batch.column(name)) for name in _NUMBERS},
        }

    def _fingerprints(
        self, column: pa.Array
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.int64]]:
        """Return the input of each fingerprint in two, and a number for the rest of it.

        Of a fingerprint of another form the rest is all of it, behind a colon.
        """
        colon, digits = len("v1:"), 2 * INPUT_BYTES
        heads = pc.binary_slice(column.cast(pa.binary()), 0, colon)
        inputs = pc.binary_slice(column.cast(pa.binary()), colon, colon + digits)
        known = pc.is_in(heads, pa.array([f"{one}:".encode() for one in VERSIONS]))
        known = pc.and_(known, pc.equal(pc.binary_length(inputs), digits))
        values, is_hex = _from_hex(inputs, digits)
        known = pc.and_(known.fill_null(False), pa.array(is_hex))  # noqa: FBT003 - its only form
        rest = pc.utf8_slice_codeunits(column, colon + digits + 1)
        rest = pc.binary_join_element_wise(heads.cast(pa.string()), rest, "")
        whole = pc.binary_join_element_wise("", column.fill_null(""), ":")
        others = self._others.of_all(pc.if_else(known, rest, whole))
        return (
            values[:, :8].copy().view(">u8")[:, 0],
            values[:, 8:].copy().view(">u4")[:, 0],
            others,
        )

    def _sort(self, rows: int) -> None:
        unsorted = {name: self._mapped(f"{name}.unsorted", name, rows) for name in _COLUMNS}
        kept = 0
        with ExitStack() as files:
            streams = {
                name: files.enter_context((self._folder / f"{name}.landed").open("wb"))
                for name in _COLUMNS
            }
            for places in shares(unsorted["high"]):
                order = self._newest(unsorted, places)
                kept += len(order)
                for name, values in unsorted.items():
                    streams[name].write(values[order].tobytes())
        unsorted.clear()
        for name in _COLUMNS:
            (self._folder / f"{name}.unsorted").unlink()
        self._columns = {name: self._mapped(f"{name}.landed", name, kept) for name in _COLUMNS}

    def _newest(
        self, rows: dict[str, NDArray[Any]], places: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the places of rows in the order of their keys, of each key the newest row.

        A key has two while a commit is open, or if a process that had lost its hold on the dataset
        brought one back; older ones of other parts are noted as doubled.
        """
        names = ("enriched_at", "low", "high")
        order = places[np.lexsort([rows[name][places] for name in names])]
        keys = Keys(rows["high"][order], rows["low"][order])
        is_last = np.ones(len(order), np.bool_)
        is_last[:-1] = (keys.high[1:] != keys.high[:-1]) | (keys.low[1:] != keys.low[:-1])
        newest = np.flatnonzero(is_last)
        for place in np.flatnonzero(~is_last).tolist():
            part = int(rows["part"][order[place]])
            after = newest[np.searchsorted(newest, place)]
            if part != int(rows["part"][order[after]]):
                gone = self.doubled.setdefault(self._parts.texts[part], set())
                gone.add(keys.digest(place))
        return order[is_last]

    def _mapped(self, file: str, name: str, rows: int) -> NDArray[Any]:
        if not rows:  # an empty file cannot be mapped
            return np.empty(0, _COLUMNS[name])
        return np.memmap(self._folder / file, _COLUMNS[name], "r")


def _is_marked(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    if MISSING_SINCE.name not in batch.schema.names:
        return np.zeros(batch.num_rows, np.bool_)
    return pc.is_valid(batch.column(MISSING_SINCE.name)).to_numpy(zero_copy_only=False)


def _integers(column: pa.Array) -> NDArray[np.int64]:
    return column.fill_null(0).to_numpy(zero_copy_only=False)


def _from_hex(column: pa.Array, digits: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the bytes that texts spell, and whether each is hexadecimal and so long."""
    fits = pc.equal(pc.binary_length(column), digits).fill_null(False)  # noqa: FBT003 - its form
    padded = pc.if_else(fits, column, b"0" * digits)
    chars = np.frombuffer(b"".join(padded.to_pylist()), np.uint8).reshape(-1, digits)
    nibbles = _HEX[chars]
    is_hex = (nibbles != _NO_DIGIT).all(axis=1) & fits.to_numpy(zero_copy_only=False)
    return nibbles[:, ::2] * _SIXTEEN + nibbles[:, 1::2] % _SIXTEEN, is_hex
