"""`forget` and `revalidate`: what the commands of these names do, for a Batch and for frames."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.settings import Settings
from batchata_tasks.dataset.key_words import word_of
from batchata_tasks.operations.forget import forget_in
from batchata_tasks.operations.revalidate import has_quotes, revalidate_in
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.spec.references import load_model

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from batchata_tasks.operations.forget import Forgotten
    from batchata_tasks.pipeline.revalidation import Revalidated
    from batchata_tasks.schema.quotes import MinGrade

_LABEL = "response_model"


def forget(output: str | PathLike[str], key: object) -> Forgotten:
    """Take one row and its texts out of a dataset, its requests, answers and keys.

    What it cost stays in ledger and budgets. The provider keeps its own copies for about a month.
    If the frame still has the row, or the program adds the job again, the next run sends it again.
    Copies of the folder are the same dataset: the next run or call that changes one takes the row
    out of it, too.

    Args:
        output: the folder of the dataset: `output` of `enrich`, or `results_dir` of a `Batch`.
        key: the value of the key column; of a Batch the job's id. If the key has several columns,
            a dict of all of them.

    Returns:
        What was taken out: `key` in words, and how many `rows` and `files` had it.

    Raises:
        SpecError: there is no dataset, no row has the key, or a batch or an unfinished run still
            has it.
        AlreadyRunningError: a run holds the dataset.
        BatchataError: something stopped it half-way; the same call carries on.
    """

    def words(names: list[str]) -> dict[str, str]:
        given = {names[0]: key} if len(names) == 1 else as_dict(key)
        if given.keys() != set(names):
            message = f"key: it has the columns {', '.join(names)}; give a dict of all of them."
            raise SpecError(message)
        return {name: word_of(value) for name, value in given.items()}

    try:
        return forget_in(_path(output), words, Settings())
    except SpecError as error:  # the argument is called as the command's option is
        raise SpecError(str(error).removeprefix("--")) from None


def revalidate(
    output: str | PathLike[str],
    response_model: type[BaseModel] | dict[str, Any] | str,
    *,
    min_grade: MinGrade | None = None,
    dry_run: bool = False,
    mark_invalid: bool = False,
) -> Revalidated:
    """Read the kept answers of a dataset by a response model, for free.

    Rows that it takes become valid, or stay so, and the next run under it does not send them again.
    Those that it does not take stay as they are. `plan` and each run tell if the model's code has
    changed since the answers were checked by it.

    Args:
        output: the folder of the dataset: `output` of `enrich`, or `results_dir` of a `Batch`.
        response_model: the model that the next run has: a Pydantic class, JSON Schema, or the
            reference of a class as in a spec. Of a Batch, that of all its jobs.
        min_grade: the grade of evidence that the next run asks for, if it does.
        dry_run: only tell what would change, and write nothing.
        mark_invalid: make rows invalid that landed under the same schema, and that only a stricter
            validator refuses. Their columns are empty then (`_response` keeps the answer), and the
            next run sends them, or, if their attempts are used up, one with `retry_failed`.

    Returns:
        How many rows `became_valid`, are `kept` though of another model, have values `filled`, are
        `no_longer_valid` (`marked` of these became invalid) or `still_invalid`; `lines()` has it in
        words.

    Raises:
        SpecError: there is no dataset, the model does not fit it, a run is unfinished, or the jobs
            of the Batch have several models.
        AlreadyRunningError: a run holds the dataset.
        BatchataError: something stopped it half-way; the same call carries on.
    """
    settings = Settings()
    folder = _path(output)
    quoted = min_grade or has_quotes(folder)
    answers = AnswerSchemas(_schema(response_model, settings.roots(), quoted=quoted))
    return revalidate_in(folder, answers, settings, dry_run=dry_run, mark_invalid=mark_invalid)


def _schema(model: object, roots: Iterable[Any], *, quoted: bool | MinGrade) -> ResponseSchema:
    if isinstance(model, dict):
        schema = cast("dict[str, Any]", model)
        return ResponseSchema.from_json_schema(schema, _LABEL, quoted=quoted)
    if not isinstance(model, type | str):
        message = f"{_LABEL}: {model!r:.80} is no Pydantic class, JSON Schema or reference of one."
        raise SpecError(message)
    live = load_model(model, roots) if isinstance(model, str) else model
    return ResponseSchema.from_model(cast("type[BaseModel]", live), _LABEL, quoted=quoted)


def _path(output: object) -> str:
    if not isinstance(output, str | PathLike):
        message = f"output: {output!r:.80} is no path; name the folder of the dataset."
        raise SpecError(message)
    return fspath(cast("str", output))
