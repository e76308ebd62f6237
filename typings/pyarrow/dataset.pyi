from collections.abc import Iterator, Sequence
from typing import Any

from . import RecordBatch, Schema, Table
from .compute import Expression

class Scanner:
    def to_batches(self) -> Iterator[RecordBatch]: ...

class Dataset:
    schema: Schema
    def scanner(
        self, *, columns: Sequence[str], batch_size: int, batch_readahead: int, fragment_readahead: int
    ) -> Scanner: ...
    def head(self, num_rows: int, *, filter: Expression | None = None) -> Table: ...

def dataset(source: Any, *, filesystem: Any = None, format: str | None = None) -> Dataset: ...
