"""By which judgement the answers of a dataset were checked: a class's code, a grade of evidence.

Its folder has `_batchata/checked.json`: by a response model's part of fingerprints, digests of the
code (see `schema/model_code.py`) and the grades (`min_grade`) by which rows that landed were
checked. The schema, and so the fingerprint, does not change if a validator becomes stricter, or if
more evidence is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from batchata_tasks.citations.citation import GRADES
from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.files import read_json, write_json
from batchata_tasks.common.json import as_dict
from batchata_tasks.planning.fingerprint import schema_part_of

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.schema.answers import AnswerSchemas

_CODE, _GRADES = "code", "grades"
_RANKS = ("none", *GRADES)
_Known = dict[str, dict[str, list[str]]]
"""Of code and grades, those by which rows were checked, by the model's part of fingerprints."""


def code_changed(folder: DatasetFolder, answers: AnswerSchemas) -> bool:
    """Whether answers were checked by other code of today's response model than it has now."""
    return _is_other(folder, answers, _CODE)


def grade_changed(folder: DatasetFolder, answers: AnswerSchemas) -> bool:
    """Whether answers were checked by another `min_grade` than today's."""
    has_rows = folder.data.is_dir() and any(folder.data.iterdir())
    return has_rows and _is_other(folder, answers, _GRADES)


def grade_lowered(folder: DatasetFolder, answers: AnswerSchemas) -> bool:
    """Whether answers were checked by a higher `min_grade` than today's."""
    if answers.grade is None:
        return False
    known = _read(folder)[_GRADES].get(schema_part_of(answers.common), ())
    return any(_RANKS.index(one) > _RANKS.index(answers.grade) for one in known if one in _RANKS)


def note_checked(held: HeldDataset, answers: AnswerSchemas, *, all_rows: bool = False) -> None:
    """Note that rows are checked by today's judgement; `all_rows` of them."""
    part, known = schema_part_of(answers.common), _read(held.folder)
    noted = {kind: dict(by_part) for kind, by_part in known.items()}
    for kind, value in _today(answers).items():
        if value is not None:
            by = {value} if all_rows else {value, *known[kind].get(part, ())}
            noted[kind][part] = sorted(by)
    if noted != known:
        held.require_lease()
        write_json(held.folder.checked, {"format": 1, **noted})


def _is_other(folder: DatasetFolder, answers: AnswerSchemas, kind: str) -> bool:
    value, part = _today(answers)[kind], schema_part_of(answers.common)
    return value is not None and any(one != value for one in _read(folder)[kind].get(part, ()))


def _today(answers: AnswerSchemas) -> dict[str, str | None]:
    """Return code and grade of the common response model."""
    return {_CODE: answers.code, _GRADES: answers.grade}


def _read(folder: DatasetFolder) -> _Known:
    if (record := read_json(folder.checked)) is None:
        return {_CODE: {}, _GRADES: {}}
    try:
        known = {_CODE: as_dict(record[_CODE]), _GRADES: as_dict(record.get(_GRADES))}
        return {
            kind: {
                part: [str(one) for one in cast("list[object]", by)] for part, by in pairs.items()
            }
            for kind, pairs in known.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{folder.checked} is damaged ({error!r}); delete it: it is made anew."
        raise StorageError(message) from error
