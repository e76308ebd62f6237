"""Tables as streams of Arrow record batches: Parquet, CSV and JSONL, local or by fsspec URL.

CSV cells are strings unless the spec's `types` says otherwise; JSONL and Parquet keep their types.
Rows are numbered from 1 in the order of the source, without the header of a CSV file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa

from batchata_tasks.common.errors import SourceError
from batchata_tasks.sources.csv import open_csv
from batchata_tasks.sources.jsonl import open_jsonl
from batchata_tasks.sources.parquet import open_parquet
from batchata_tasks.sources.table import Source, errors_of, no_such_file, plain_type

if TYPE_CHECKING:
    from collections.abc import Mapping


def open_source(url: str, types: Mapping[str, str]) -> Source:
    """Open a table by its ending: .parquet or a folder, .csv, .jsonl or .ndjson (also .gz).

    Raises:
        SourceError: it does not exist, cannot be read, or is of an unknown kind.
    """
    kind = _kind(url)
    if types and kind != "csv":
        message = (
            f"types: only CSV columns can be given types, and {url} is not a CSV file; "
            "remove `types`."
        )
        raise SourceError(message)
    with errors_of(url):
        match kind:
            case "csv":
                source = open_csv(url, types)
            case "jsonl":
                source = open_jsonl(url)
            case _:
                source = open_parquet(url)
    names = source.schema.names
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        message = f"source: {url} has two columns named {duplicates[0]!r}; rename one."
        raise SourceError(message)
    plain = pa.schema([pa.field(f.name, plain_type(f.type)) for f in source.schema])
    return replace(source, schema=plain)


def _kind(url: str) -> str:
    suffixes = [s.lower() for s in PurePosixPath(url).suffixes if s.lower() not in (".gz", ".gzip")]
    match suffixes[-1:]:
        case [".csv"]:
            return "csv"
        case [".jsonl"] | [".ndjson"]:
            return "jsonl"
        case [".parquet"] | [".pq"]:
            return "parquet"
        case _ if "://" not in url and Path(url).is_dir():
            return "parquet"
        case _ if "://" not in url and not Path(url).exists():
            raise no_such_file(url)
        case _:
            message = (
                f"source: cannot tell what {url} is; name a .parquet, .csv or .jsonl file "
                "(also .gz), or a folder of Parquet files."
            )
            raise SourceError(message)
