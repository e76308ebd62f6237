"""`batchata show --key`: one row whole, from what was sent for it to what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.dataset as pads

from batchata_tasks.common.errors import InputError, SpecError
from batchata_tasks.common.json_columns import is_nested
from batchata_tasks.common.money import dollars, pico_from_usd
from batchata_tasks.dataset.columns import OWN_NAMES
from batchata_tasks.dataset.folder import DatasetFolder
from batchata_tasks.dataset.key_words import key_values, places_of, typed_key
from batchata_tasks.dataset.stored_json import from_parquet, schema_of_part
from batchata_tasks.execution.quoted import text_of
from batchata_tasks.reports.kept_requests import kept_documents, kept_request
from batchata_tasks.reports.marked_pages import marked_html
from batchata_tasks.reports.passages import passage_lines
from batchata_tasks.reports.requests import RequestParts, indented, pretty
from batchata_tasks.reports.selected_rows import parts_of
from batchata_tasks.reports.source_row import SourceRow, source_row
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.jobs import JOB_ID
from batchata_tasks.spec.run import RunSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from batchata_tasks.reports.shown_dataset import ShownDataset


@dataclass(frozen=True)
class OneRow:
    """One row of a dataset, its row of the source, and its request.

    `row` has the dataset's columns. `request` is what was sent last, if request files are kept.
    `source` is the source's row as it is now, or, as a text, why there is none.
    """

    dataset: ShownDataset
    key: dict[str, Any]
    row: dict[str, Any]
    request: RequestParts | None
    source: SourceRow | str

    @property
    def prompt(self) -> RequestParts | None:
        """The request as it was sent, or else what would be sent now; None if neither is known."""
        if self.request is not None or isinstance(self.source, str):
            return self.request
        return self.source.prompt

    @property
    def prompt_is(self) -> str | None:
        """What is known of the prompt: `sent`, `rendered` now, or nothing."""
        if self.request is not None:
            return "sent"
        return "rendered" if self.prompt is not None else None

    @property
    def has_changed(self) -> bool:
        """Whether the source's row, or the spec, would make another prompt than the one sent."""
        if self.request is None or isinstance(self.source, str) or self.source.prompt is None:
            return False
        (system, now), (sent_system, sent) = _said(self.source.prompt), _said(self.request)
        # another attempt may have turns of its own behind these
        sent = sent[: len(now)]
        if self.source.attaches and now and len(sent) == len(now):
            role, text = sent[-1]
            _, own = now[-1]
            sent[-1] = role, own if text.endswith(f"\n\n{own}") else text
        return system != sent_system or sent != now

    @property
    def answers(self) -> dict[str, Any]:
        """The fields of the answer."""
        others = {*self.dataset.carried, *OWN_NAMES}
        return {name: value for name, value in self.row.items() if name not in others}

    def to_json(self) -> dict[str, Any]:
        """Return plain values; those that JSON lacks are as Python has them."""
        prompt, source = self.prompt, self.source
        return {
            "key": self.key,
            "row": self.row,
            "inputs": None if isinstance(source, str) else source.inputs,
            "prompt": None
            if prompt is None
            else {
                "is": self.prompt_is,
                "turns": prompt.to_json(),
                "parameters": prompt.parameters,
                "schema": prompt.schema,
            },
            "changed_since": self.has_changed,
        }

    def facts(self) -> list[tuple[str, str]]:
        """Return what came of the row, for people, as (label, value)."""
        row = self.row
        carried = {name: row.get(name) for name in self.dataset.carried if name not in self.key}
        return [
            ("Row", named(self.key)),
            ("Outcome", str(row["_status"])),
            *([("Error", str(row["_error"]))] if row["_error"] is not None else []),
            *((f"  {name}", shown(value)) for name, value in self.answers.items()),
            *((f"  {name}", shown(value)) for name, value in carried.items()),
            ("Attempts", f"{row['_attempts']:,}"),
            ("Cost", self._cost()),
            ("Batch", f"{row['_batch_id'] or 'none'} of {row['_provider']}, {row['_model']}"),
            ("Request", str(row["_custom_id"])),
            ("Run", str(row["_run_id"])),
            ("Landed", f"{row['_enriched_at']:%Y-%m-%d %H:%M:%S} UTC"),
        ]

    def _cost(self) -> str:
        row = self.row
        cost = None if row["_cost_usd"] is None else pico_from_usd(row["_cost_usd"])
        cached = f" ({row['_cache_read_tokens']:,} cached)" if row["_cache_read_tokens"] else ""
        used = f"{row['_input_tokens'] or 0:,} tokens in{cached}, {row['_output_tokens'] or 0:,}"
        return f"{dollars(cost)}, for {used} out, over all attempts"

    def text(self) -> str:
        """Return inputs, prompt, passages and raw answer, for people."""
        sections = self._inputs(), self._prompt(), self._passages(), self._answer()
        return "\n".join(chain.from_iterable(sections))

    def _inputs(self) -> list[str]:
        if isinstance(self.source, str):
            return [self.source, ""]
        lines = list[str]()
        for name, value in self.source.inputs.items():
            lines += [f"  {name}:", *indented(shown(value))]
        return ["Inputs, as the source has them now:", *lines, ""] if lines else []

    def _prompt(self) -> list[str]:
        prompt = self.prompt
        if prompt is None:
            return ["Prompt: not known, as no request file is kept.", ""]
        if self.request is None:
            head = "Prompt, rendered now, as no request file is kept:"
        else:
            head = "Prompt, as it was sent:"
        lines = [head, *prompt.lines()]
        if prompt.parameters:
            lines += ["  with:", *pretty(prompt.parameters)]
        if self.has_changed:
            lines.append("The source's row or the spec has changed since: it would be another one.")
        return [*lines, ""]

    def _passages(self) -> list[str]:
        citations = self.row.get("_citations")
        if not citations:
            return []
        return ["Passages that the answer rests on:", *passage_lines(self.answers, citations), ""]

    def html(self) -> str:
        """Return a page of HTML with the documents that were sent, and the passages in them."""
        of_job = self.dataset.key == [JOB_ID]
        documents = kept_documents(DatasetFolder(self.dataset.output), self.row, of_job=of_job)
        texts = [text for one in documents if (text := text_of(one)) is not None]
        citations: list[dict[str, Any]] = self.row.get("_citations") or []
        return marked_html(named(self.key), self.answers, citations, texts)

    def _answer(self) -> list[str]:
        raw = self.row["_response"]
        if raw is None:
            return ["Raw answer: none."]
        return ["Raw answer:", *indented(raw)]


def _said(prompt: RequestParts) -> tuple[str, list[tuple[str, str]]]:
    """Return the system prompt and the other turns: providers have it in one or in several."""
    system = [text for role, text in prompt.turns if role == "system" and text.strip()]
    return "\n\n".join(system), [turn for turn in prompt.turns if turn[0] != "system"]


def named(key: dict[str, Any]) -> str:
    """Return a key for people."""
    return ", ".join(f"{name}={value!r}" for name, value in key.items())


def shown(value: object) -> str:
    """Return a value for people; null is a word, as an empty text is none."""
    if value is None or isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def one_row(dataset: ShownDataset, words: Sequence[str]) -> OneRow:
    """Return the row whose key is given as words: the value of the key column, or `column=value`.

    Raises:
        SpecError: there is no such row, or a word is no value of its column.
    """
    parts: pads.Dataset = pads.dataset([str(path) for path in parts_of(dataset)], format="parquet")
    key = typed_key(dataset.key, words, schema_of_part(parts.schema))
    found, values = _rows(parts, key), key_values(key)
    if not found:
        plan = ", `batchata plan SPEC` tells what is not sent yet"
        message = (
            f"--key: the dataset has no row with {named(values)}; `batchata show SPEC` prints "
            f"rows that there are{plan if isinstance(dataset, EnrichmentSpec) else ''}."
        )
        raise SpecError(message)
    row = max(found, key=lambda one: one["_enriched_at"])
    request = kept_request(DatasetFolder(dataset.output), row)
    return OneRow(dataset, values, row, request, _source(dataset, key))


def _source(dataset: ShownDataset, key: pa.RecordBatch) -> SourceRow | str:
    if not isinstance(dataset, RunSpec):
        return "Inputs: not known, as a folder does not tell where its source is; a spec does."
    try:
        return source_row(dataset, key)
    except InputError as error:
        return f"The source's row cannot be read now: {error}"


def _rows(dataset: pads.Dataset, key: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a key; while a run lands, there may be an older one."""
    plain = [field.name for field in key.schema if not is_nested(field.type)]
    conditions = [pc.field(name) == key.column(name)[0] for name in plain]
    here = reduce(lambda one, other: one & other, conditions) if conditions else None
    return [
        batch.slice(place, 1).to_pylist()[0]
        for batch in dataset.to_batches(filter=here)
        for place in places_of(key, from_parquet(batch.select(key.schema.names)))
    ]
