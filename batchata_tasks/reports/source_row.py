"""One row of a source, found by its key, with the prompt that the spec makes of it now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SourceError
from batchata_tasks.dataset.key_words import places_of
from batchata_tasks.planning.prepare import opened_source
from batchata_tasks.planning.row_block import RowBlock
from batchata_tasks.planning.templates import RowTemplate, variables
from batchata_tasks.planning.values import shown
from batchata_tasks.reports.requests import RequestParts
from batchata_tasks.spec.enrichment import EnrichmentSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from batchata_tasks.spec.run import RunSpec


@dataclass(frozen=True)
class SourceRow:
    """The columns of a row that the templates use, and the prompt; None of a batch of jobs.

    `attaches` says that documents may come before the text of the last turn.
    """

    inputs: dict[str, Any]
    prompt: RequestParts | None
    attaches: bool = False


def source_row(spec: RunSpec, key: pa.RecordBatch) -> SourceRow:
    """Return the row of a source that has this key.

    Raises:
        InputError: it is not there, or cannot be read or rendered.
    """
    if not isinstance(spec, EnrichmentSpec):
        return SourceRow({}, None)
    source = opened_source(spec)
    names = source.names()
    turns = [(turn.role, RowTemplate(turn.role, turn.content, names)) for turn in spec.turns()]
    templates = [
        *(one for _, one in turns),
        *(RowTemplate("file", f, names) for f in spec.file or []),
    ]
    used = [name for name in names if any(name in template.columns for template in templates)]
    before = 0
    for block in source.batches([*dict.fromkeys([*spec.key, *used])]):
        numbers = block.numbers(before)
        before += len(numbers)
        if len(places := places_of(key, block.rows)):
            row = RowBlock(block.rows, numbers, spec.key).take(places[:1])
            values = {name: row.values(name)[0] for name in used}
            seen, where = variables(shown(values, used)), row.namer(0)
            texts = tuple((role, template.render(seen, where)) for role, template in turns)
            return SourceRow(values, RequestParts(texts, None, {}), attaches=bool(spec.file))
    message = "the row is not in the source any more."
    raise SourceError(message)
