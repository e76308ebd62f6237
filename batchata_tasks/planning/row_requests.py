"""From a row to its request, and to the fingerprint that decides whether it is sent.

A `RequestBuilder` holds all that the rows of a spec share, prepared once: compiled templates, three
parts of the fingerprint, the route.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import orjson

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.json_columns import is_nested
from batchata_tasks.common.text import is_unicode, printable
from batchata_tasks.dataset.renames import Renames
from batchata_tasks.planning.body_form import BodyForm
from batchata_tasks.planning.builder import BuiltRequest, Fingerprints, without_text
from batchata_tasks.planning.fingerprint import (
    inputs_of,
    inputs_v1_of,
    other_parts,
    part,
    prompt_part,
    schema_part_of,
)
from batchata_tasks.planning.hints import literal
from batchata_tasks.planning.limits import limit_of
from batchata_tasks.planning.route import Route, Shape
from batchata_tasks.planning.row_documents import RowDocuments
from batchata_tasks.planning.templates import RowCondition, RowTemplate, variables
from batchata_tasks.planning.text_form import spelled
from batchata_tasks.planning.values import shown
from batchata_tasks.pricing.lookup import rates_at, unpriced
from batchata_tasks.types.request import Message, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from batchata_tasks.planning.row_block import RowBlock
    from batchata_tasks.pricing.price_file import CustomPrices
    from batchata_tasks.providers import Adapter
    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.spec.enrichment import EnrichmentSpec
    from batchata_tasks.types.document import Document


class RequestBuilder:
    """Turns rows of one spec into fingerprints and request bodies."""

    def __init__(
        self,
        spec: EnrichmentSpec,
        schema: ResponseSchema | None,
        provider: Adapter,
        columns: list[str],
        prices: CustomPrices,
        renames: Renames | None = None,
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
        self._documents = RowDocuments(spec, provider, columns) if spec.file else None
        used = {name for _, template in self._turns for name in template.columns}
        self._used = [name for name in columns if name in used]
        renames = renames or Renames()
        self._original = renames.originals(self._used)
        rates = rates_at(provider, spec.model, prices)
        caches = spec.cache or "cache_control" in spec.params or provider.caches_unasked
        self.routes = [
            Route(provider, spec.model, spec.endpoint, rates, spec.max_tokens, caches=caches)
        ]
        self._shape = Shape(spec.max_tokens, turns_sent, schema is not None)
        self._check(priced=rates is not None)
        self.constant = (
            renames.original_prompt(prompt_part((t.role, t.content) for t in turns)),
            part("model", self._model_facts()),
            schema_part_of(schema),
        )
        self._others = other_parts(*self.constant)
        self._form = BodyForm.of(provider, self._request(messages))

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
        if spec.file:
            structured = self._schema is not None
            provider.check_attaching(cited=spec.enable_citations, structured=structured)
        if not priced and (field := limit_of(spec)) is not None:
            raise SpecError(unpriced("model", provider.name, spec.model, field))

    def _model_facts(self) -> dict[str, Any]:
        spec = self._spec
        facts: dict[str, Any] = {"provider": self._provider.name, "model": spec.model}
        facts["endpoint"] = spec.endpoint
        if spec.file:
            facts["documents"] = True
        if spec.enable_citations:
            facts["citations"] = True
        return {**facts, "max_tokens": spec.max_tokens, "params": spec.params}

    def columns_needed(self, all_columns: list[str]) -> list[str]:
        """Return the columns to read: key, carried, those that templates and `where` use."""
        needed = {*self._spec.carried, *self._used, *self.columns_of_where()}
        needed.update(self.columns_of_files())
        return [name for name in all_columns if name in needed]

    def columns_used(self) -> list[str]:
        """Return the columns that the templates use."""
        return list(self._used)

    def columns_of_files(self) -> list[str]:
        """Return the columns that `file` uses."""
        return [] if self._documents is None else list(self._documents.columns)

    def columns_of_where(self) -> list[str]:
        """Return the columns that `where` uses."""
        return list(self._where.columns) if self._where else []

    def notes(self, columns: pa.Schema) -> list[str]:
        """Return sentences about what is likely to be no prompt that somebody meant."""
        notes = list[str]()
        for _, template in self._turns:
            nested = [name for name in template.printed if is_nested(columns.field(name).type)]
            if nested:
                name = nested[0] if nested[0].isidentifier() else f"row[{literal(nested[0])}]"
                names = ", ".join(repr(printable(name)) for name in nested)
                notes.append(
                    f"{template.field}: {names}: objects and lists print as Python writes them, "
                    f"such as {{'a': None}}; {{{{ {name} | tojson }}}} prints JSON"
                )
        return notes

    def kept(self, rows: RowBlock) -> Sequence[int]:
        """Return the places of the rows for which `where` holds."""
        return range(len(rows)) if self._where is None else self._where.kept(rows)

    def nulls(self, rows: RowBlock) -> dict[int, str]:
        """Return the first column that the templates use and the row leaves null, by place."""
        found: dict[int, str] = {}
        for name in self._used:
            if rows.batch.column(name).null_count:
                for i, value in enumerate(rows.values(name)):
                    if value is None:
                        found.setdefault(i, name)
        return found

    def fingerprints(self, rows: RowBlock) -> Fingerprints:
        """Return the fingerprints of the rows' base requests."""
        if self._documents is None:
            return Fingerprints(inputs_of(self._inputs(rows), len(rows)), [self._others])
        added = self._documents.identities(rows)
        inputs = inputs_of(self._inputs(rows), len(rows), [one.text for one in added])
        unknown = [place for place, one in enumerate(added) if not one.known]
        return Fingerprints(inputs, [self._others], unknown)

    def inputs_v1(self, rows: RowBlock) -> list[bytes]:
        """Return the inputs of the rows' fingerprints as version 1 had them."""
        return inputs_v1_of(self._inputs(rows), len(rows))

    def _inputs(self, rows: RowBlock) -> dict[str, list[Any]]:
        return {self._original[name]: rows.values(name) for name in self._used}

    def requests(self, rows: RowBlock, places: Sequence[int]) -> Iterator[BuiltRequest]:
        """Yield the requests of the rows at some places; nulls render as nothing."""
        plain = [template.render_plain(rows, places) for _, template in self._turns]
        if None in plain:
            texts = (self._rendered(rows, place) for place in places)
        else:
            texts = zip(*cast("list[Iterator[str]]", plain), strict=True)
        for place, row_texts in zip(places, texts, strict=True):
            if self._documents is None:
                yield BuiltRequest(self._body(row_texts, rows.namer(place)), self._shape)
            else:
                yield self._with_documents(self._documents, rows, place, row_texts)

    def _with_documents(
        self, documents: RowDocuments, rows: RowBlock, place: int, texts: tuple[str, ...]
    ) -> BuiltRequest:
        """Return the request of a row that may have documents."""
        where = rows.namer(place)
        try:
            attached = documents.read(rows, place)
        except SpecError as error:
            if self._spec.on_bad_document == "skip":
                return BuiltRequest(b"{}", self._shape, problem=str(error))
            return BuiltRequest(b"{}", self._shape, refused=SourceError(f"{where()}: {error}"))
        if not attached:
            return BuiltRequest(self._body(texts, where), self._shape)
        attached = [document.beside(self._schema) for document in attached]
        most = sum(self.routes[0].attach(document) for document in attached)
        shape = replace(self._shape, attached=most)
        body = self._body(texts, where, tuple(attached))
        return BuiltRequest(body, shape, without_text=without_text(attached))

    def _rendered(self, rows: RowBlock, place: int) -> tuple[str, ...]:
        values = {name: rows.values(name)[place] for name in self._used}
        seen, where = variables(shown(values, self._used)), rows.namer(place)
        return tuple(template.render(seen, where) for _, template in self._turns)

    def _body(
        self,
        texts: tuple[str, ...],
        where: Callable[[], str],
        documents: tuple[Document, ...] = (),
    ) -> bytes:
        """Return the body of a row whose turns have these texts, as JSON.

        Its documents come before the text of the last turn.
        """
        is_blank = any(not text or text.isspace() for text in texts)
        try:
            if self._form is not None and not is_blank and not documents:
                return self._form.with_texts(list(map(spelled, texts)))
            return self._built(texts, where, documents)
        except TypeError as error:
            for text, (_, template) in zip(texts, self._turns, strict=True):
                if not is_unicode(text):
                    message = (
                        f"{template.field}: {where()} renders to a text with half of a surrogate "
                        "pair, which cannot be sent; fix the template."
                    )
                    raise SourceError(message) from error
            raise

    def _built(
        self, texts: tuple[str, ...], where: Callable[[], str], documents: tuple[Document, ...]
    ) -> bytes:
        """Return a body that the provider's adapter makes of a row's texts."""
        messages = tuple(
            Message(turn.role, text) for (turn, _), text in zip(self._turns, texts, strict=True)
        )
        self._check_blank(messages, where)
        if documents:
            *before, last = messages
            messages = (*before, Message(last.role, (*documents, last.text)))
        return orjson.dumps(self._provider.body(self._request(messages)))

    def _request(self, messages: tuple[Message, ...]) -> Request:
        spec = self._spec
        return Request(spec.model, messages, spec.max_tokens, spec.params, self._schema, spec.cache)

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
