"""From a row to the request that is sent for it, and to the fingerprint that decides whether.

A `RequestBuilder` is everything of a spec that is the same for all rows, prepared once: compiled
templates, the three constant parts of the fingerprint, the adapter, the rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.errors import SourceError, SpecError
from batchata_tasks.fingerprint import fingerprint, part
from batchata_tasks.jobs import Job, Message
from batchata_tasks.pricing import batch_rates, similar_models
from batchata_tasks.retry import changed_body
from batchata_tasks.templates import RowCondition, RowTemplate, variables
from batchata_tasks.tokens import input_bound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.providers import Provider
    from batchata_tasks.schema import ResponseSchema
    from batchata_tasks.spec import EnrichmentSpec


class RequestBuilder:
    """Turns rows of one spec into fingerprints and request bodies."""

    def __init__(self, spec: EnrichmentSpec, schema: ResponseSchema | None, provider: Provider, columns: list[str]) -> None:
        self._spec = spec
        self._schema = schema
        self._provider = provider
        turns = spec.turns()
        labels = ["prompt" if t.role == "user" else t.role for t in turns]
        if spec.messages is not None:
            labels = [f"messages.{i}" for i in range(len(turns))]
        self._turns = [(t, RowTemplate(label, t.content, columns)) for t, label in zip(turns, labels, strict=True)]
        sample = Job(spec.model, tuple(Message(t.role, t.content) for t in turns), spec.max_tokens)
        self._own_turns = len(provider.body(sample)["messages"])  # a system prompt is no message everywhere
        self._where = RowCondition(spec.where, columns) if spec.where else None
        used = {name for _, template in self._turns for name in template.columns}
        self.used = [name for name in columns if name in used]
        self.rates = batch_rates(provider.name, spec.model)
        if spec.cache and provider.caches_unasked:
            message = f"cache: the {provider.name} API caches long prompts by itself, without marks; remove it."
            raise SpecError(message)
        provider.check_params(spec.model, spec.params, limited=spec.limited)
        if self.rates is None and (field := _limit_of(spec)) is not None:
            close = similar_models(provider.name, spec.model)
            meant = f" (did you mean {' or '.join(close)}?)" if close else ""
            message = (
                f"model: no batch price is known for {spec.model!r}, so {field} could not hold; check its name{meant}, "
                "state its batch rates in prices.toml, or remove the limit (costs will read as unknown)."
            )
            raise SpecError(message)
        self.bounds_factor = 10**6  # in millionths: more once an answer of the model cost more than its bound
        self.constant = (
            part("prompt", [[t.role, t.content] for t in turns]),
            part("model", self._model_facts()),
            part("schema", schema.canonical if schema is not None else None),
        )

    def _model_facts(self) -> dict[str, Any]:
        spec = self._spec
        facts = {"provider": self._provider.name, "endpoint": spec.endpoint, "model": spec.model}
        return {**facts, "max_tokens": spec.max_tokens, "params": spec.params}

    def columns_needed(self, all_columns: list[str]) -> list[str]:
        """Return the columns that must be read: key, carried, and what templates and `where` use."""
        needed = {*self._spec.carried, *self.used, *(self._where.columns if self._where else ())}
        return [name for name in all_columns if name in needed]

    def keeps(self, row: Mapping[str, Any], where: Callable[[], str]) -> bool:
        """Whether `where` holds for the row."""
        return self._where is None or self._where.holds(variables(row), where)

    def fingerprint(self, row: Mapping[str, Any]) -> str:
        """Return the fingerprint of the row's base request."""
        return fingerprint(part("input", {name: row[name] for name in self.used}), *self.constant)

    def null_column(self, row: Mapping[str, Any]) -> str | None:
        """Return the first column that the templates use and the row leaves null."""
        return next((name for name in self.used if row[name] is None), None)

    def body(self, row: Mapping[str, Any], where: Callable[[], str]) -> bytes:
        """Return the request body as JSON; nulls render as nothing."""
        values = {name: "" if row[name] is None else row[name] for name in self.used}
        seen = variables(values)
        messages = tuple(Message(turn.role, template.render(seen, where)) for turn, template in self._turns)
        if not any(message.content.strip() for message in messages if message.role == "user"):
            message = f"prompt: {where()} renders to an empty prompt, which the provider refuses; use `where` to leave such rows out."
            raise SourceError(message)
        job = Job(self._spec.model, messages, self._spec.max_tokens, self._spec.params, self._schema, self._spec.cache)
        return orjson.dumps(self._provider.body(job))

    def again(self, body: bytes, status: str, error: str | None, attempts: int) -> tuple[bytes, int] | None:
        """Return the body of another attempt at a request and its bound; None where it is sent again as it was.

        `body` is what was sent last, or the base request where that is not known any more.
        """
        changed = changed_body(
            body, status, error, attempts, cap_param=self._provider.cap_param, cap=self._spec.max_tokens, turns=self._own_turns
        )
        if changed is None:
            return None
        text, cap, turns = changed
        return text, self._bound(text, len(self._turns) - self._own_turns + turns, cap)

    def bound(self, body: bytes) -> int:
        """Return the most that a base request can cost, in picodollars; 0 where no price is known."""
        return self._bound(body, len(self._turns), self._spec.max_tokens)

    def _bound(self, body: bytes, turns: int, cap: int) -> int:
        if self.rates is None:
            return 0
        # within a text of the body the quotes would be escaped
        writes = self._provider.caches_unasked or b'"cache_control"' in body
        bound = self.rates.bound(input_bound(body, turns, schema=self._schema is not None), cap, cache_writes=writes)
        return -(-bound * self.bounds_factor // 10**6)


def _limit_of(spec: EnrichmentSpec) -> str | None:
    """Name the first key of a spec that limits costs."""
    if spec.cost_limit_usd is not None:
        return "cost_limit_usd"
    if spec.budget is not None:
        return "budget"
    return "pilot.max_cost_per_row_usd" if spec.pilot is not None and spec.pilot.max_cost_per_row_usd is not None else None
