from collections.abc import Iterator, Sequence
from typing import Any

from . import RecordBatch, Schema, Table
from .compute import Expression

class Fragment:
    path: str
    physical_schema: Schema
    def to_batches(
        self, *, schema: Schema, columns: Sequence[str], batch_size: int
    ) -> Iterator[RecordBatch]: ...

class Dataset:
    schema: Schema
    def get_fragments(self) -> Iterator[Fragment]: ...
    def to_table(self, *, filter: Expression | None = None) -> Table: ...
    def to_batches(
        self, *, columns: Sequence[str] | None = None, filter: Expression | None = None
    ) -> Iterator[RecordBatch]: ...
    def head(self, num_rows: int, *, filter: Expression | None = None) -> Table: ...

def dataset(source: Any, *, filesystem: Any = None, format: str | None = None) -> Dataset: ...
