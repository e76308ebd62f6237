"""Rounds: the rows of a run that are worth another attempt, planned once all of the last round landed.

A round is planned from what landed and fixed in the ledger like the first one, so a run that dies
in it carries it on. It ends a run's rounds that nothing is worth another attempt any more, that the
attempts are used up, or that a limit stops the run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.money import PICO
from batchata_tasks.dataset.columns import keys_of, part_of_chunk
from batchata_tasks.dataset.manifest import (
    SYSTEM_FIELDS,
    PlanWriter,
    bodies_at,
    read_chunk_manifest,
)
from batchata_tasks.ledger import Chunk, ChunkKind, ChunkState
from batchata_tasks.planning.estimate import costs_of, measures
from batchata_tasks.planning.packing import Packer
from batchata_tasks.planning.retry import worth_another
from batchata_tasks.planning.route import Shape
from batchata_tasks.types.destination import Destination
from batchata_tasks.types.ids import CUSTOM_ID_CHARS, chunk_token

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batchata_tasks.execution.run_context import RunContext
    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.table import PreparedTable

_ROUNDS = 3  # of one run, also where fewer attempts are allowed: what never ran was no attempt
_ALL = 10**6  # turns; manifests of older versions do not tell how many are the request's own
_STATE = (
    "_status",
    "_error",
    "_attempts",
    "_input_tokens",
    "_output_tokens",
    "_cache_read_tokens",
    "_cost_usd",
)


def plan_round(context: RunContext) -> list[Chunk]:
    """Plan the run's next round and write it to the ledger; return its chunks, none where there is nothing to do."""
    chunks, table = context.ledger.chunks(context.run_id), context.table
    last = max((chunk.round for chunk in chunks), default=0)
    if table is None or not context.sends or "failed" not in context.spec.rerun_on:
        return []
    if not 0 < last < max(context.spec.max_attempts, _ROUNDS):
        return []
    landed = [
        chunk
        for chunk in chunks
        if chunk.round == last
        and chunk.kind == ChunkKind.BATCH
        and chunk.state == ChunkState.LANDED
    ]
    spans = _Round(context, table, last + 1).write(landed)
    if not spans:
        return []
    expected = costs_of(spans, measures(context.ledger, table, spans))
    following = [
        _chunk_of(landed[0], table, span, cost) for span, cost in zip(spans, expected, strict=True)
    ]
    context.ledger.add_round(context.lease, following)
    return following


def _chunk_of(
    before: Chunk, table: PreparedTable, span: PlannedChunk, expected: int | None
) -> Chunk:
    number, route = before.round + 1, table.builder.routes[span.route]
    provider, model, endpoint = route.destination
    return replace(
        before,
        id=chunk_token(before.run_id, number, span.start, ChunkKind.BATCH),
        round=number,
        start=span.start,
        stop=span.stop,
        bytes=span.bytes,
        bound=span.bound if route.rates is not None else None,
        expected=expected,
        state=ChunkState.PLANNED,
        batch_id=None,
        provider=provider,
        model=model,
        endpoint=endpoint,
    )


class _Round:
    """Writes one round's plan."""

    def __init__(self, context: RunContext, table: PreparedTable, number: int) -> None:
        self._context, self._table, self._number = context, table, number
        self._folder = context.folder.run_folder(context.run_id)
        self._places = {route.destination: i for i, route in enumerate(table.builder.routes)}
        self._packer = Packer(
            [route.provider.limits for route in table.builder.routes], context.spec.items_per_batch
        )

    def write(self, landed: Iterable[Chunk]) -> list[PlannedChunk]:
        """Write the rows of these chunks that are worth another attempt; return the round's spans."""
        fields = pa.schema(
            [self._table.dataset.schema.field(name) for name in self._context.spec.carried]
        )
        with PlanWriter(self._folder, f"plan-{self._number}", fields) as writer:
            for chunk in sorted(
                landed, key=self._route_of
            ):  # stable: what may share a batch comes together
                self._add(chunk, writer, fields)
        return self._packer.finish()

    def _route_of(self, chunk: Chunk) -> int:
        return self._places[Destination(chunk.provider, chunk.model, chunk.endpoint)]

    def _add(self, chunk: Chunk, writer: PlanWriter, fields: pa.Schema) -> None:
        key, part = self._context.spec.key, part_of_chunk(chunk.id)
        states: dict[bytes, dict[str, Any]] = {}
        for batch in self._table.dataset.part_rows(part, [*key, *_STATE]):
            rows = zip(keys_of(batch, key), batch.select(list(_STATE)).to_pylist(), strict=True)
            states |= {row_key: state for row_key, state in rows if self._worth_another(state)}
        if not states:
            return
        manifest = read_chunk_manifest(self._context.folder.manifest(chunk.id))
        keys = keys_of(manifest, key)
        at = [i for i, row_key in enumerate(keys) if row_key in states]
        rows = manifest.take(pa.array(at, pa.int64())).combine_chunks()
        bodies, systems = list[bytes](), list[dict[str, Any]]()
        known = rows.select(SYSTEM_FIELDS.names).to_pylist()
        for i, system, last in zip(
            at, known, bodies_at(self._folder, chunk, rows["_offset"].to_pylist()), strict=True
        ):
            body, fresh = self._row(self._route_of(chunk), system, states[keys[i]], last, part)
            bodies.append(body)
            systems.append(fresh)
        source = rows.select(fields.names).cast(fields).to_batches()[0]
        writer.write(source, systems, bodies)

    def _worth_another(self, state: dict[str, Any]) -> bool:
        return worth_another(
            state["_status"], state["_error"], state["_attempts"], self._context.spec.max_attempts
        )

    def _row(
        self, place: int, system: dict[str, Any], state: dict[str, Any], last: bytes, part: str
    ) -> tuple[bytes, dict[str, Any]]:
        route = self._table.builder.routes[place]
        structured = self._table.answers.of(system["_schema"]) is not None
        shape = Shape(
            system["_cap"] or route.cap,
            system["_turns"] or _ALL,
            structured,
            system["_schema"],
            system["_attached"] or 0,
        )
        again = route.again(last, shape, state["_status"], state["_error"], state["_attempts"])
        body, bound = again or (last, system["_bound"])
        size = route.provider.framing.size(CUSTOM_ID_CHARS, body)
        self._packer.add(size, bound, place)
        cost = state["_cost_usd"]
        return body, system | {
            "_bound": bound,
            "_bytes": size,
            "_replaces": part,
            "_replaced_cost": 0,
            "_prior_status": state["_status"],
            "_prior_error": state["_error"],
            "_changed": bool(system["_changed"]) or again is not None,
            "_prior_attempts": state["_attempts"],
            "_prior_input_tokens": state["_input_tokens"],
            "_prior_output_tokens": state["_output_tokens"],
            "_prior_cache_read_tokens": state["_cache_read_tokens"],
            "_prior_cost": None if cost is None else int(cost * PICO),
        }
