"""Raw files: requests and responses, a file per batch and a file per job, for people who debug."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.common.files import read_json, storage_errors
from batchata_tasks.dataset.manifest import read_chunk_manifest
from batchata_tasks.dataset.raw_files import batch_file, job_file
from batchata_tasks.execution.contexts import context_of
from batchata_tasks.spec.jobs import JOB_ID
from batchata_tasks.types.ids import custom_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.ledger import Chunk


def with_raw_files(
    collect: Callable[[RunRef, str], dict[str, Any]],
) -> Callable[[RunRef, str], dict[str, Any]]:
    """Return a collect step that writes raw files, too."""

    def collected(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        value = collect(ref, chunk_id)
        context = context_of(ref)
        write_raw_files(context, context.ledger.chunk(chunk_id))
        return value

    return collected


def write_raw_files(context: RunContext, chunk: Chunk) -> None:
    """Write the raw files of a landed batch under `<results_dir>/raw_files`.

    If requests go out as one JSON document (Anthropic), the results are one, too: a list of the
    lines that came. Else each line is a JSON document.
    """
    if chunk.batch_id is None:
        return
    folder = context.folder.raw
    requests, responses = folder / "requests", folder / "responses"
    as_lines = not context.for_chunk(chunk).provider.framing.head
    name = batch_file(chunk.provider, chunk.batch_id, "jsonl" if as_lines else "json")
    with storage_errors("writing raw files"):
        for place in (requests, responses):
            place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(context.request_file(chunk), requests / name)
        lines = list(_paths(context, chunk))
        _write_responses(lines, responses / name, as_lines=as_lines)
        _write_jobs(context, chunk, lines)


def _paths(context: RunContext, chunk: Chunk) -> Iterator[Path]:
    response = read_json(context.folder.responses / f"{chunk.id}.json") or {}
    for name in response.get("files", []):
        yield context.folder.responses / name


def _lines(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as stream:
            yield from (line.rstrip(b"\r\n") for line in stream if line.strip())


def _write_responses(paths: list[Path], target: Path, *, as_lines: bool) -> None:
    head, joint, tail = (b"", b"\n", b"\n") if as_lines else (b"[\n", b",\n", b"\n]\n")
    with target.open("wb") as stream:
        stream.write(head)
        for number, line in enumerate(_lines(paths)):
            stream.write(joint * (number > 0) + line)
        stream.write(tail)


def _write_jobs(context: RunContext, chunk: Chunk, paths: list[Path]) -> None:
    manifest = read_chunk_manifest(context.folder.manifest(chunk.id))
    ids = zip(manifest["_row_id"].to_pylist(), manifest[JOB_ID].to_pylist(), strict=True)
    files = {
        custom_id(chunk.id, row_id): job_file(context.folder, job_id) for row_id, job_id in ids
    }
    for line in _lines(paths):
        try:
            result = orjson.loads(line)
            file = files.get(result["custom_id"])
        except (ValueError, LookupError, TypeError):
            continue  # a broken line belongs to no job
        if file is not None:
            file.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
