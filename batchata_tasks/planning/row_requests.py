"""From a row to its request, and to the fingerprint that decides whether it is sent.

A `RequestBuilder` holds all that the rows of a spec share, prepared once: compiled templates, three
parts of the fingerprint, the route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.planning.builder import BuiltRequest
from batchata_tasks.planning.fingerprint import fingerprint, part
from batchata_tasks.planning.limits import limit_of
from batchata_tasks.planning.route import Route, Shape
from batchata_tasks.planning.templates import RowCondition, RowTemplate, variables
from batchata_tasks.planning.values import shown
from batchata_tasks.pricing.lookup import rates_at, unpriced
from batchata_tasks.types.request import Message, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.pricing.price_file import CustomPrices
    from batchata_tasks.providers import Adapter
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.spec.enrichment import EnrichmentSpec


class RequestBuilder:
    """Turns rows of one spec into fingerprints and request bodies."""

    def __init__(
        self,
        spec: EnrichmentSpec,
        schema: ResponseSchema | None,
        provider: Adapter,
        columns: list[str],
        prices: CustomPrices,
    ) -> None:
        self._spec = spec
        self._schema = schema
        self._provider = provider
        turns = spec.turns()
        labels = ["prompt" if t.role == "user" else t.role for t in turns]
        if spec.messages is not None:
            labels = [f"messages.{i}" for i in range(len(turns))]
        self._turns = [
            (t, RowTemplate(label, t.content, columns))
            for t, label in zip(turns, labels, strict=True)
        ]
        messages = tuple(Message(t.role, t.content) for t in turns)
        sample = Request(spec.model, messages, spec.max_tokens)
        # a system prompt is one of the messages with some providers only
        turns_sent = len(provider.body(sample)[provider.turns_param])
        self._where = RowCondition(spec.where, columns) if spec.where else None
        used = {name for _, template in self._turns for name in template.columns}
        self._used = [name for name in columns if name in used]
        rates = rates_at(provider, spec.model, prices)
        caches = spec.cache or "cache_control" in spec.params or provider.caches_unasked
        self.routes = [
            Route(provider, spec.model, spec.endpoint, rates, spec.max_tokens, caches=caches)
        ]
        self._shape = Shape(spec.max_tokens, turns_sent, schema is not None)
        self._check(priced=rates is not None)
        self.constant = (
            part("prompt", [[t.role, t.content] for t in turns]),
            part("model", self._model_facts()),
            part("schema", schema.canonical if schema is not None else None),
        )

    def _check(self, *, priced: bool) -> None:
        """Refuse what the provider would refuse, and a limit that no known price could hold."""
        spec, provider = self._spec, self._provider
        if spec.cache and provider.caches_unasked:
            reason = f"the {provider.name} API caches long prompts by itself, without marks"
            message = f"cache: {reason}; remove it."
            raise SpecError(message)
        provider.check_model(spec.model, spec.max_tokens)
        provider.check_turns([Message(turn.role, turn.content) for turn, _ in self._turns])
        provider.check_params(spec.model, spec.params, limited=spec.limited)
        provider.check_cap(spec.max_tokens, spec.params)
        if self._schema is not None:
            provider.check_schema(self._schema)
        if not priced and (field := limit_of(spec)) is not None:
            raise SpecError(unpriced("model", provider.name, spec.model, field))

    def _model_facts(self) -> dict[str, Any]:
        spec = self._spec
        facts = {"provider": self._provider.name, "endpoint": spec.endpoint, "model": spec.model}
        return {**facts, "max_tokens": spec.max_tokens, "params": spec.params}

    def columns_needed(self, all_columns: list[str]) -> list[str]:
        """Return the columns to read: key, carried, and those that templates and `where` use."""
        needed = {*self._spec.carried, *self._used, *(self._where.columns if self._where else ())}
        return [name for name in all_columns if name in needed]

    def columns_used(self) -> list[str]:
        """Return the columns that the templates use."""
        return list(self._used)

    def keeps(self, row: Mapping[str, Any], where: Callable[[], str]) -> bool:
        """Whether `where` holds for the row."""
        if self._where is None:
            return True
        # which rows a condition keeps must not change: here a null is Jinja's own none
        seen = shown(row, self._where.columns, null=None)
        return self._where.holds(variables(seen), where)

    def fingerprint(self, row: Mapping[str, Any]) -> str:
        """Return the fingerprint of the row's base request."""
        return fingerprint(part("input", {name: row[name] for name in self._used}), *self.constant)

    def null_column(self, row: Mapping[str, Any]) -> str | None:
        """Return the first column that the templates use and the row leaves null."""
        return next((name for name in self._used if row[name] is None), None)

    def body(self, row: Mapping[str, Any], where: Callable[[], str]) -> bytes:
        """Return the request body as JSON; nulls render as nothing."""
        seen = variables(shown(row, self._used))
        messages = tuple(
            Message(turn.role, template.render(seen, where)) for turn, template in self._turns
        )
        self._check_blank(messages, where)
        request = Request(
            self._spec.model,
            messages,
            self._spec.max_tokens,
            self._spec.params,
            self._schema,
            self._spec.cache,
        )
        return orjson.dumps(self._provider.body(request))

    def _check_blank(self, messages: tuple[Message, ...], where: Callable[[], str]) -> None:
        """Refuse a row whose prompt is blank, or a turn that the provider does not take blank.

        A blank system prompt is none.
        """
        for place, message in enumerate(messages, 1):
            is_prompt = place == len(messages)
            if message.text.strip() or not (is_prompt or self._is_needed(message)):
                continue
            field = self._turns[place - 1][1].field
            what = "prompt" if is_prompt else "turn"
            reason = f"{field}: {where()} renders to an empty {what}, which the provider refuses"
            text = f"{reason}; use `where` to leave such rows out."
            raise SourceError(text)

    def _is_needed(self, message: Message) -> bool:
        return message.role != "system" and not self._provider.blank_turns

    def build(self, row: Mapping[str, Any], where: Callable[[], str]) -> BuiltRequest:
        """Return the row's request; nulls render as nothing."""
        return BuiltRequest(self.body(row, where), self._shape)
