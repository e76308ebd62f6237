"""JobResult: the result of a Job."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel

from batchata_tasks.api.success import SuccessOf
from batchata_tasks.common.html import pairs_html, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchata_tasks.citations.citation import Citation

_SHOWN = 200  # characters of an answer in a repr


@dataclass(slots=True, repr=False)
class JobResult:
    """The result of a job.

    `response` is the raw text of the answer, empty without one. `parsed_response` is the answer in
    the job's response model, a dict if that is JSON Schema. `citations` are the passages of its
    document on which the answer rests, as in the column `_citations`; None if the job did not ask
    for them. `citation_mappings` are those of fields, by their paths, such as `items[0].price`.
    Tokens and `cost_usd` (US dollars) count all attempts; `cost_usd` is nan without a known price,
    and while the job is held: nobody knows yet what it costs. `error` is None if the job succeeded.
    `outcome` is how it ended, as in the column `_status`, and `batch_id` the provider's id of the
    batch that answered it last; both are None if it has not ended.
    """

    job_id: str
    response: str = ""
    parsed_response: BaseModel | dict[str, Any] | None = None
    citations: list[dict[str, Any]] | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    error: str | None = None
    outcome: str | None = None
    batch_id: str | None = None

    def __hash__(self) -> int:
        return hash(self.job_id)

    def __repr__(self) -> str:
        facts = [f"{name}={shortened(value, _SHOWN)!r}" for name, value in self._told() if value]
        return f"JobResult({self.job_id!r}, {', '.join(facts)}, cost_usd={self.cost_usd})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        tokens = f"{self.input_tokens:,} in, {self.output_tokens:,} out"
        told = [(name, value) for name, value in self._told() if value]
        return pairs_html(
            [("job_id", self.job_id), *told, ("tokens", tokens), ("cost_usd", self.cost_usd)]
        )

    def _told(self) -> list[tuple[str, str]]:
        """Return what there is to read: the parsed answer if there is one, else its text."""
        parsed = self.parsed_response
        answer = ("response", self.response) if parsed is None else ("parsed_response", str(parsed))
        citations = "" if not self.citations else f"{len(self.citations)}"
        return [("error", self.error or ""), answer, ("citations", citations)]

    is_success = SuccessOf()

    @property
    def citation_mappings(self) -> dict[str, list[Citation]]:
        """The citations of fields, by the path of the field, in the order of the answer."""
        by_field: dict[str, list[Citation]] = {}
        for one in self.citations or []:
            if one.get("field") is not None:
                by_field.setdefault(one["field"], []).append(cast("Citation", one))
        return by_field

    @property
    def raw_response(self) -> str:
        """`response`, by the name that it has in other libraries."""
        return self.response

    @property
    def total_tokens(self) -> int:
        """Tokens of the input and the output together."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        parsed = self.parsed_response
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        if isinstance(parsed, BaseModel):
            values["parsed_response"] = parsed.model_dump(mode="json")
        values["citation_mappings"] = self.citation_mappings
        return values | {"cost_usd": None if math.isnan(self.cost_usd) else self.cost_usd}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JobResult:
        """Return a result from what `to_dict` gave; its parsed answer is a dict."""
        # what speaks for which field follows from the citations
        values = {name: value for name, value in data.items() if name != "citation_mappings"}
        if values.get("cost_usd") is None:
            values["cost_usd"] = float("nan")
        return cls(**values)

    def save_to_json(self, path: str | Path, indent: int = 2) -> None:
        """Write the result to a JSON file; a missing folder is made."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)
        target.write_text(text + "\n", encoding="utf-8")
