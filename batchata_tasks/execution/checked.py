"""By which code of a response model the answers of a dataset were checked.

Its folder has `_batchata/checked.json`: by the model's part of fingerprints, digests of the code
(see `schema/model_code.py`) by which rows that landed were checked. The schema, and so the
fingerprint, of a class does not change if a validator of it becomes stricter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from batchata_tasks.common.errors import StorageError
from batchata_tasks.common.files import read_json, write_json
from batchata_tasks.common.json import as_dict
from batchata_tasks.planning.fingerprint import schema_part_of

if TYPE_CHECKING:
    from batchata_tasks.dataset.folder import DatasetFolder
    from batchata_tasks.execution.held_dataset import HeldDataset
    from batchata_tasks.schema.answers import AnswerSchemas


def code_changed(folder: DatasetFolder, answers: AnswerSchemas) -> bool:
    """Whether answers were checked by other code of today's response model than it has now."""
    part, code = _today(answers)
    return code is not None and any(one != code for one in _read(folder).get(part, ()))


def note_checked(held: HeldDataset, answers: AnswerSchemas, *, all_rows: bool = False) -> None:
    """Note that rows are checked by the code that a response model has now; `all_rows` of them."""
    part, code = _today(answers)
    if code is None:
        return
    known = _read(held.folder)
    by = {code} if all_rows else {code, *known.get(part, ())}
    if by != set(known.get(part, ())):
        held.require_lease()
        write_json(held.folder.checked, {"format": 1, "code": {**known, part: sorted(by)}})


def _today(answers: AnswerSchemas) -> tuple[str, str | None]:
    """Return the common response model's part of fingerprints, and its code."""
    return schema_part_of(answers.common), answers.code


def _read(folder: DatasetFolder) -> dict[str, list[str]]:
    if (record := read_json(folder.checked)) is None:
        return {}
    try:
        known = as_dict(record["code"])
        return {part: [str(one) for one in cast("list[object]", by)] for part, by in known.items()}
    except (KeyError, TypeError, AttributeError) as error:
        message = f"{folder.checked} is damaged ({error!r}); delete it: it is made anew."
        raise StorageError(message) from error
