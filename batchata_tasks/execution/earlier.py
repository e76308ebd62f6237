"""What rows had answered before an attempt that brought no answer: paid for, and so kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchata_tasks.common.canonical import key_digest
from batchata_tasks.dataset.columns import keys_of

if TYPE_CHECKING:
    import pyarrow as pa

    from batchata_tasks.dataset.parts import Dataset


_SAID = ("_response", "_citations")


class EarlierAnswers:
    """Reads them from the parts that a chunk replaces, when the first one is asked for.

    `own` is the chunk's own part: a landing that died may have taken rows out of the older ones.
    """

    def __init__(self, dataset: Dataset, manifest: pa.Table, own: str) -> None:
        self._dataset = dataset
        self._manifest = manifest
        self._own = own
        self._said: dict[bytes, dict[str, Any]] | None = None
        self._digests = list[bytes]()

    def __call__(self, position: int) -> dict[str, Any]:
        """Return the columns of an earlier answer to the row at a position, if it had one."""
        if self._said is None:
            keys = keys_of(self._manifest, self._dataset.key)
            self._digests = [key_digest(key) for key in keys]
            self._said = self._read(set(self._digests))
        return self._said.get(self._digests[position], {})

    def _read(self, wanted: set[bytes]) -> dict[bytes, dict[str, Any]]:
        replaced: list[str | None] = self._manifest["_replaces"].to_pylist()
        key, said = self._dataset.key, dict[bytes, dict[str, Any]]()
        for part in dict.fromkeys([*filter(None, replaced), self._own]):
            for batch in self._dataset.part_rows(part, [*key, *_SAID]):
                digests = [key_digest(one) for one in keys_of(batch, key)]
                for digest, row in zip(digests, batch.select(list(_SAID)).to_pylist(), strict=True):
                    if digest in wanted and row["_response"] is not None:
                        said[digest] = row
        return said
