"""Rounds: the rows that are worth another attempt, planned once all of the last round landed.

A round is planned from what landed and fixed in the ledger like the first one, so a run that dies
in it carries it on. There is no next round once no row is worth another attempt, the attempts are
used up, or a limit stops the run.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchata_tasks.common.money import PICO
from batchata_tasks.dataset.columns import keys_of
from batchata_tasks.dataset.manifest import (
    SYSTEM_FIELDS,
    PlanWriter,
    bodies_at,
    manifest_schema,
    read_chunk_manifest,
)
from batchata_tasks.dataset.part_files import part_of_chunk
from batchata_tasks.execution.land import commit_of
from batchata_tasks.execution.made_part import end_of
from batchata_tasks.ledger import Chunk, ChunkKind, ChunkState
from batchata_tasks.planning.estimate import estimates_of, measures
from batchata_tasks.planning.landed import STATE_COLUMNS
from batchata_tasks.planning.packing import Packer
from batchata_tasks.planning.retry import worth_another
from batchata_tasks.planning.route import Shape
from batchata_tasks.types.destination import Destination
from batchata_tasks.types.ids import CUSTOM_ID_CHARS, chunk_token
from batchata_tasks.types.outcome import ErrorCode, error_code

if TYPE_CHECKING:
    from batchata_tasks.pipeline.planning_run import PlanningRun
    from batchata_tasks.planning.estimate import Estimate
    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.table import PreparedTable

# of one run, even if fewer attempts are allowed: what never ran was no attempt; rounds that met
# trouble of the account do not count
_ROUNDS = 3
_BLOCK = 4096
_ALL_TURNS = 10**6  # manifests of older versions do not say how many are the request's own
_UNTRIED: dict[str, Any] = {
    **dict.fromkeys(("_attempts", "_input_tokens", "_output_tokens", "_cache_read_tokens"), 0),
    "_cost_usd": Decimal(0),
}
_STATE = [name for name in STATE_COLUMNS if name not in ("_fingerprint", "_enriched_at")]


def plan_round(run: PlanningRun) -> list[Chunk]:
    """Plan the run's next round and write it to the ledger; return its chunks, if any."""
    chunks, table = run.ledger.chunks(run.run_id), run.table
    last = max((chunk.round for chunk in chunks), default=0)
    sent = [c for c in chunks if c.kind == ChunkKind.BATCH and c.state == ChunkState.LANDED]
    cut = {chunk.round for chunk in sent if commit_of(run.folder, chunk.id).get("account")}
    more = last - len(cut) < max(run.spec.max_attempts, _ROUNDS)
    if not (more and "failed" in run.spec.rerun_on) and last not in cut:
        return []
    landed = [chunk for chunk in sent if chunk.round == last]
    spans = _Round(run, last + 1).write(landed)
    if not spans:
        return []
    likely = estimates_of(spans, measures(run.ledger, table, spans))
    planned = [
        _chunk_of(landed[0], table, span, one) for span, one in zip(spans, likely, strict=True)
    ]
    run.ledger.add_round(run.lease, planned)
    return planned


def _chunk_of(before: Chunk, table: PreparedTable, span: PlannedChunk, likely: Estimate) -> Chunk:
    """Return a chunk of the round after that of `before`."""
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
        expected=likely.cost,
        tokens=likely.input_tokens,
        state=ChunkState.PLANNED,
        batch_id=None,
        resends=0,
        provider=provider,
        model=model,
        endpoint=endpoint,
    )


class _Round:
    """Writes one round's plan."""

    def __init__(self, run: PlanningRun, number: int) -> None:
        self._run = run
        self._table = run.table
        self._number = number
        self._folder = run.folder.run_folder(run.run_id)
        routes = run.table.builder.routes
        self._places = {route.destination: i for i, route in enumerate(routes)}
        limits = [route.provider.limits for route in routes]
        self._packer = Packer(limits, run.spec.items_per_batch)

    def write(self, landed: list[Chunk]) -> list[PlannedChunk]:
        """Write the rows of these chunks that are worth another attempt; return the next chunks."""
        # the types that the run was planned with: a run that is carried on has not settled them
        source = (
            manifest_schema(self._run.folder.manifest(landed[0].id)) if landed else pa.schema([])
        )
        names = [name for name in self._run.spec.carried if name in source.names]
        fields = pa.schema([source.field(name) for name in names])
        with PlanWriter(self._folder, f"plan-{self._number}", fields) as writer:
            # a stable sort: rows that may share a batch come together, in their order
            for chunk in sorted(landed, key=self._route_of):
                self._add(chunk, writer, fields)
        return self._packer.finish()

    def _route_of(self, chunk: Chunk) -> int:
        return self._places[Destination(chunk.provider, chunk.model, chunk.endpoint)]

    def _add(self, chunk: Chunk, writer: PlanWriter, fields: pa.Schema) -> None:
        """Add the rows of a chunk that are worth another attempt."""
        part = part_of_chunk(chunk.id)
        states, left = self._states(part), commit_of(self._run.folder, chunk.id).get("left")
        if not states and not left:
            return
        manifest = read_chunk_manifest(self._run.folder.manifest(chunk.id))
        keys = keys_of(manifest, self._run.spec.key)
        if left:
            states |= self._left(manifest, keys)
        at = [i for i, row_key in enumerate(keys) if row_key in states]
        for start in range(0, len(at), _BLOCK):  # as Python's objects, rows take kilobytes each
            block = at[start : start + _BLOCK]
            rows = manifest.take(pa.array(block, pa.int64())).combine_chunks()
            sent = bodies_at(self._folder, chunk, rows["_offset"].to_pylist())
            bodies, systems = list[bytes](), list[dict[str, Any]]()
            place = self._route_of(chunk)
            for i, before, last in zip(
                block, rows.select(SYSTEM_FIELDS.names).to_pylist(), sent, strict=True
            ):
                body, system = self._row(place, before, states[keys[i]], last, part)
                bodies.append(body)
                systems.append(system)
            source = rows.select(fields.names).to_batches()[0]
            system = {name: [fields[name] for fields in systems] for name in SYSTEM_FIELDS.names}
            writer.write(source, system, bodies)

    def _states(self, part: str) -> dict[bytes, dict[str, Any]]:
        """Return how the rows of a part ended that are worth another attempt, by key."""
        key = self._run.spec.key
        states: dict[bytes, dict[str, Any]] = {}
        for batch in self._table.dataset.part_rows(part, [*key, *_STATE]):
            rows = zip(keys_of(batch, key), batch.select(_STATE).to_pylist(), strict=True)
            states |= {row_key: state for row_key, state in rows if self._worth_another(state)}
        return states

    def _left(self, manifest: pa.Table, keys: list[bytes]) -> dict[bytes, dict[str, Any]]:
        """Return how the requests ended, by key, of a chunk's rows that stay in older parts."""
        states = dict[bytes, dict[str, Any]]()
        for row_key, left, part, cost in zip(
            keys,
            *(
                manifest[name].to_pylist()
                for name in ("_batchata_left", "_replaces", "_replaced_cost")
            ),
            strict=True,
        ):
            if left is not None:
                outcome, error = end_of(left)
                before = {"_replaces": part, "_replaced_cost": cost}
                state = {**_UNTRIED, **before, "_status": outcome, "_error": error}
                if self._worth_another(state):
                    states[row_key] = state
        return states

    def _worth_another(self, state: dict[str, Any]) -> bool:
        if "failed" not in self._run.spec.rerun_on:
            return error_code(state["_error"]) is ErrorCode.ACCOUNT
        return worth_another(
            state["_status"], state["_error"], state["_attempts"], self._run.spec.max_attempts
        )

    def _row(
        self, place: int, system: dict[str, Any], state: dict[str, Any], last: bytes, part: str
    ) -> tuple[bytes, dict[str, Any]]:
        """Return a row's next request and the system fields of its manifest."""
        route = self._table.builder.routes[place]
        shape = Shape(
            cap=system["_cap"] or route.cap,
            turns=system["_turns"] or _ALL_TURNS,
            structured=self._table.answers.of(system["_schema"]) is not None,
            schema=system["_schema"],
            attached=system["_attached"] or 0,
        )
        changed = route.again(last, shape, state["_status"], state["_error"], state["_attempts"])
        body, bound = changed or (last, system["_bound"])
        size = route.provider.framing.size(CUSTOM_ID_CHARS, body)
        self._packer.add(size, bound, place)
        cost = state["_cost_usd"]
        # what a changed request may be set back to is how the row ended before it
        is_of_account = error_code(state["_error"]) is ErrorCode.ACCOUNT
        again = is_of_account and system["_changed"]
        # under a price it was an answer that did not say; then its bound counts as overhead
        unknown = None if route.rates is None else 0
        return body, system | {
            "_bound": bound,
            "_bytes": size,
            "_replaces": state.get("_replaces", part),
            "_replaced_cost": state.get("_replaced_cost", 0),
            "_batchata_left": None,
            "_prior_status": state["_status"],
            "_prior_error": system["_prior_error"] if again else state["_error"],
            "_last_error": state["_error"],
            "_changed": bool(system["_changed"]) or changed is not None,
            "_prior_attempts": state["_attempts"],
            "_prior_input_tokens": state["_input_tokens"],
            "_prior_output_tokens": state["_output_tokens"],
            "_prior_cache_read_tokens": state["_cache_read_tokens"],
            "_prior_cost": unknown if cost is None else int(cost * PICO),
        }
