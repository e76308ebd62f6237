"""`enrich`: new columns for a frame, by the same pipeline that enriches the tables of specs."""

from __future__ import annotations

from contextlib import closing, contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, overload

import pyarrow as pa
from rich.console import Console

from batchata_tasks.api.frame_answers import FrameAnswers, answer_fields
from batchata_tasks.api.frames import frame_of
from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.columns import META_FIELDS
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.pipeline.runner import runner_of_jobs
from batchata_tasks.pipeline.start import refresh_mark
from batchata_tasks.planning.job_store import dataset_name
from batchata_tasks.planning.prepare import prepare_run
from batchata_tasks.planning.summary import Options
from batchata_tasks.progress.console import for_console
from batchata_tasks.progress.listener import silent
from batchata_tasks.providers import without_keys_set
from batchata_tasks.reports.plan import preview
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.spec.loading import parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path
    from typing import Unpack

    from pydantic import BaseModel

    from batchata_tasks.api.frames import Frame
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.planning.prepare import PreparedRun
    from batchata_tasks.progress.listener import Progress
    from batchata_tasks.reports.preview import Preview
    from batchata_tasks.schema.quotes import MinGrade
    from batchata_tasks.spec.enrichment import EnrichmentSpec

F = TypeVar("F")
DEFAULT_METADATA = ("_status", "_error", "_cost_usd")


class SpecOptions(TypedDict, total=False):
    """The keys of a spec that `enrich` takes beside its own arguments."""

    spec_version: Literal[1]
    name: str
    where: str | None
    limit: int | None
    types: dict[str, str]
    csv: dict[str, Any] | None
    on_null: Literal["error", "empty", "skip", "pass"]
    provider: str | None
    endpoint: Literal["chat", "responses"]
    credentials: str | None
    system: str | None
    prompt_file: str | None
    messages: list[dict[str, str]] | None
    file: str | list[str] | None
    document_root: str | None
    on_bad_document: Literal["error", "skip"]
    response_schema: dict[str, Any] | str | None
    enable_citations: bool
    min_grade: MinGrade | None
    max_tokens: int
    params: dict[str, Any]
    cache: bool
    columns: list[str] | None
    on_missing: Literal["keep", "mark", "delete"]
    max_missing_share: float
    items_per_batch: int | None
    max_parallel_batches: int
    cost_limit_usd: float | None
    budget: dict[str, Any] | str | None
    pilot: dict[str, Any] | Literal[False] | None
    time_limit: str | None
    rerun_on: list[str]
    max_attempts: int
    fail_if: dict[str, Any]
    raw_files: bool
    retention: str | None
    delete_results: bool


class _Options(SpecOptions, total=False):
    """All arguments of `enrich` that may be left out."""

    prompt: str | None
    response_model: type[BaseModel] | str | None
    metadata: Sequence[str] | Literal["all"]
    decimals: Literal["decimal", "float"]
    refresh: bool
    retry_failed: bool
    take_over: bool
    print_status: bool
    on_receipt: Callable[[Receipt], None] | None


@overload
def enrich(
    frame: Any,
    *,
    key: str | Sequence[str],
    model: str,
    output: str | PathLike[str],
    dry_run: Literal[True],
    **options: Unpack[_Options],
) -> Preview: ...
@overload
def enrich(
    frame: str | PathLike[str],
    *,
    key: str | Sequence[str],
    model: str,
    output: str | PathLike[str],
    dry_run: Literal[False] = False,
    **options: Unpack[_Options],
) -> Path: ...
@overload
def enrich(
    frame: F,
    *,
    key: str | Sequence[str],
    model: str,
    output: str | PathLike[str],
    dry_run: Literal[False] = False,
    **options: Unpack[_Options],
) -> F: ...
def enrich(
    frame: Any,
    *,
    key: str | Sequence[str],
    model: str,
    output: str | PathLike[str],
    dry_run: bool = False,
    prompt: str | None = None,
    response_model: type[BaseModel] | str | None = None,
    metadata: Sequence[str] | Literal["all"] = DEFAULT_METADATA,
    decimals: Literal["decimal", "float"] = "decimal",
    refresh: bool = False,
    retry_failed: bool = False,
    take_over: bool = False,
    print_status: bool = False,
    on_receipt: Callable[[Receipt], None] | None = None,
    **options: Unpack[SpecOptions],
) -> Any:
    """Return a frame with new columns that a language model fills in, through a batch API.

    It is a run of a spec whose source is the frame, and all that holds for specs holds: rows whose
    input, prompt, model and schema are as they were when they landed in `output` are not sent
    again; limits bind; a program that was killed carries on when it makes the same call again.
    It returns once the run has ended, which takes minutes to a day.

    Args:
        frame: a DataFrame of pandas or Polars, a LazyFrame, an Arrow Table, RecordBatch or
            RecordBatchReader, or a DuckDB relation. Or the path (pattern, URL) of a table.
        key: the column, or columns, that identify a row: unique and never null. Of pandas also
            names of the index.
        model: the provider's model id.
        output: the folder of the dataset, in which the answers land.
        dry_run: send and write nothing; return the plan instead. No key is needed.
        prompt: the user prompt, a Jinja2 template over the row. Or `prompt_file`, or `messages`.
        response_model: a Pydantic class, or the reference of one as in a spec. Its fields are
            columns; without it the answer is the column `response`.
        metadata: the columns about the answers that are given back, such as `_status`, `_error`
            and `_cost_usd` (the default); or "all". The dataset always has all of them.
        decimals: "float" gives columns of decimals, such as `_cost_usd`, as floats.
        refresh: count rows that landed before this run as not landed.
        retry_failed: send rows again that failed for good.
        take_over: the dataset may be filled by another spec until now.
        print_status: show the progress.
        on_receipt: called with the receipt of the run: what it did and cost.
        **options: any other key of a spec, such as `system`, `where`, `limit`, `max_tokens`,
            `cost_limit_usd` (US dollars) or `budget`. `name` is that of the folder by default.

    Returns:
        A frame of the same kind, with the same rows in the same order, the same index and columns,
        then the answer's columns and the metadata. Rows without an answer have nulls, and
        `_status` and `_error` say why. Of a path: the path of the dataset's Parquet files. Of a
        dry run: what a run would send, what that would cost, and which limits it would meet.

    Raises:
        InputError: a row, a column or an option cannot be used; nothing was sent.
        AlreadyRunningError: another run holds the dataset.
        BatchataError: something stopped the run half-way; the same call carries on.
    """
    if not isinstance(output, str | PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        message = f"output: {output!r:.80} is no path; name the folder of the dataset."
        raise SpecError(message)
    if "source" in options:
        message = "source: the frame is the source, and its own argument; leave this one out."
        raise SpecError(message)
    given = {
        **options,
        "key": key if isinstance(key, str) else list(key),
        "model": model,
        "output": fspath(output),
        **({} if prompt is None else {"prompt": prompt}),
    }
    is_path = isinstance(frame, str | PathLike)
    own = None if is_path else frame_of(frame)
    spec = _spec(own, given, response_model, fspath(frame) if is_path else "")
    names = _metadata(metadata)
    if dry_run:
        return _planned(spec, own, names, Options(refresh_mark(refresh), retry_failed, take_over))
    ready = prepare_run(spec, Settings())
    _refuse_clashes(own, ready, names)
    with _progress(shown=print_status) as progress:
        receipt = runner_of_jobs().table(
            ready, progress, refresh=refresh, retry_failed=retry_failed, take_over=take_over
        )
    if on_receipt is not None:
        on_receipt(receipt)
    if own is None:
        return DatasetFolder(spec.output).data
    columns = FrameAnswers(ready, receipt).table(names)
    return own.with_columns(_as_floats(columns) if decimals == "float" else columns)


def _spec(
    frame: Frame | None,
    given: dict[str, Any],
    response_model: type[BaseModel] | str | None,
    path: str,
) -> EnrichmentSpec:
    """Return the spec of a call; it is the same for the same call, so that a dead run goes on."""
    live = response_model if isinstance(response_model, type) else None
    source: Any = path if frame is None else {"frame": frame.kind}
    keys: dict[str, Any] = {
        "name": dataset_name(DatasetFolder(given["output"])),
        "source": source,
        **given,
    }
    if live is not None:
        if keys.get("response_schema") is not None:
            message = "enrich: give `response_model` or `response_schema`, not both."
            raise SpecError(message)
        keys["response_schema"] = ResponseSchema.from_model(live, "response_model").stored
    elif response_model is not None:
        keys["response_model"] = response_model
    spec = parse_spec(keys, "enrich")
    if frame is not None:
        spec.with_frame(frame.source)
    return spec if live is None else spec.with_model(live)


def _metadata(wanted: Sequence[str] | Literal["all"]) -> list[str]:
    known = META_FIELDS.names
    if wanted == "all":
        return list(known)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    if unknown := next((name for name in names if name not in known), None):
        message = f"metadata: there is no column {unknown!r}; there are: {', '.join(known)}."
        raise SpecError(message)
    return names


def _planned(
    spec: EnrichmentSpec, frame: Frame | None, names: list[str], options: Options
) -> Preview:
    """Return the plan of a call, which a run would refuse for the same reasons."""
    settings = Settings()
    with without_keys_set(), closing(prepare_run(spec, settings)) as ready:
        _refuse_clashes(frame, ready, names)
    return preview(spec, settings, options)


def _refuse_clashes(frame: Frame | None, ready: PreparedRun, metadata: list[str]) -> None:
    """Refuse a frame that has a column of the answers, before anything is sent."""
    known = () if frame is None else frame.names
    new = [*answer_fields(ready).names, *metadata]
    if taken := next((name for name in new if name in known), None):
        message = (
            f"frame: it has a column {taken!r}, and the answers have one, too; drop or rename it."
        )
        raise SpecError(message)


@contextmanager
def _progress(*, shown: bool) -> Generator[Progress, None, None]:
    if not shown:
        yield silent()
        return
    with for_console(Console(stderr=True), transient=False) as progress:
        yield progress


def _as_floats(columns: pa.Table) -> pa.Table:
    """Return columns with decimals as floats."""
    for place, field in enumerate(columns.schema):
        if pa.types.is_decimal(field.type):
            floats = columns[field.name].cast(pa.float64())
            columns = columns.set_column(place, pa.field(field.name, pa.float64()), floats)
    return columns
