"""JobResult: what became of a Job."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class JobResult:
    """What became of a job.

    `response` is the raw text of the answer, empty where there is none; `parsed_response` the answer
    in the job's response model (a dict where that is JSON Schema); `citations` what of its document it
    rests on, None where that was not asked for: see the column `_citations`. Tokens and `cost_usd` (US
    dollars) count all attempts; `cost_usd` is nan where no price is known. `error` is None where the
    job succeeded.
    """

    job_id: str
    response: str = ""
    parsed_response: BaseModel | dict[str, Any] | None = None
    citations: list[dict[str, Any]] | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    error: str | None = None

    def is_success(self) -> bool:
        """Whether there is an answer that can be used."""
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        parsed = self.parsed_response
        plain = parsed.model_dump(mode="json") if isinstance(parsed, BaseModel) else parsed
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return found | {
            "parsed_response": plain,
            "cost_usd": None if self.cost_usd != self.cost_usd else self.cost_usd,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> JobResult:
        """Return the result that `to_dict` gave; its parsed answer is a dict."""
        cost = data.get("cost_usd")
        known: dict[str, Any] = {**data, "cost_usd": float("nan") if cost is None else cost}
        return cls(**known)

    def save_to_json(self, path: str | Path, indent: int = 2) -> None:
        """Write the result to a JSON file; its folder is made where it is missing."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            json.dumps(self.to_dict(), indent=indent, ensure_ascii=False) + "\n", encoding="utf-8"
        )
