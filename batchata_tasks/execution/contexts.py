"""Finds the context that a step of a run works with, in whichever process the step is done.

In the process that holds the dataset it is the live run. In any other one it is built from the
ledger: the spec, the response model, the plan and the prices that the run began with. Settings,
keys and the ledger's password come from that process's own environment.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.execution.borrowed_dataset import borrow_dataset
from batchata_tasks.execution.run_context import RunContext, RunState, stored_spec
from batchata_tasks.ledger import ChunkKind
from batchata_tasks.schema.answers import AnswerSchemas
from batchata_tasks.spec.enrichment import EnrichmentSpec

if TYPE_CHECKING:
    from collections.abc import Generator

    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.ledger import Chunk
    from batchata_tasks.spec.run import RunSpec

_MOST_BORROWED = 8  # a worker that lives on does steps of one run after the other

# by process, too: a process that was forked off holds nothing of what its parent holds
_Key = tuple[int, "RunRef"]
_LIVE: dict[_Key, RunContext] = {}
_BORROWED: OrderedDict[_Key, RunContext] = OrderedDict()
_LOCK = threading.Lock()


@contextmanager
def active(context: RunContext) -> Generator[RunContext, None, None]:
    """Let steps in this process find a live run, and requests to stop reach it."""
    key = (os.getpid(), context.ref)
    held = context.held
    _LIVE[key], held.run_at_work = context, context.run_id
    if held.stop_requested is not None:
        context.ledger.request_stop(context.run_id, held.stop_requested)
    try:
        yield context
    finally:
        held.run_at_work = None
        del _LIVE[key]


def context_of(ref: RunRef) -> RunContext:
    """Return the context of a run: the live one, or one for another process's run.

    Raises:
        WrongLedgerError: this process uses another ledger than the run.
        SpecError: this process lacks the dataset's folder or the spec's response model.
    """
    key = (os.getpid(), ref)
    if (live := _LIVE.get(key)) is not None:
        return live
    with _LOCK:
        if key not in _BORROWED:
            _BORROWED[key] = _borrowed(ref)
        _BORROWED.move_to_end(key)
        if len(_BORROWED) > _MOST_BORROWED:
            _, oldest = _BORROWED.popitem(last=False)
            oldest.ledger.close()
        return _BORROWED[key]


def _borrowed(ref: RunRef) -> RunContext:
    settings = Settings()
    held = borrow_dataset(ref, settings)
    stored = json.loads(held.ledger.run(ref.run_id).spec)
    spec = stored_spec(stored)
    answers = answers_of(stored, spec, settings) if ref.sends else AnswerSchemas.from_json(stored)
    state = RunState(
        batch_numbers=_numbers(held.ledger.chunks(ref.run_id)),
        numbered_before=True,
    )
    return RunContext(held, ref.run_id, spec, answers, sends=ref.sends, state=state)


def _numbers(chunks: list[Chunk]) -> dict[str, int]:
    """Return batch numbers in the order of rows: only the holder knows the order of sending."""
    batches = [chunk.id for chunk in chunks if chunk.kind == ChunkKind.BATCH]
    return {chunk_id: number for number, chunk_id in enumerate(batches, 1)}


def answers_of(stored: dict[str, Any], spec: RunSpec, settings: Settings) -> AnswerSchemas:
    """Return what checks the answers: the spec's class with its validators, or the stored schema.

    The classes of a Batch's jobs exist in the process that made the jobs alone. Elsewhere their
    stored JSON Schema checks the answers, without validators of their own.

    Raises:
        SpecError: this process loads another class than the one that the run began with.
    """
    if not isinstance(spec, EnrichmentSpec) or spec.response_model is None:
        return AnswerSchemas.from_json(stored)
    # a process that lives long may have imported a part of its code for an earlier run
    answers = AnswerSchemas(spec.schema_of_answers(settings.roots(), anew=True))
    _ = answers.code  # the digest is of the files as they are now that the class is made of them
    if json.loads(json.dumps(answers.to_json()))["schema"] != stored["schema"]:
        raise SpecError(_another_version(spec))
    return answers


def is_read_alike(run: RunContext) -> bool:
    """Whether another process can check answers as this one does: by the same code, or by none."""
    spec = run.spec
    if not run.sends or not isinstance(spec, EnrichmentSpec):
        return False
    # a class that the spec does not name exists in the process that has it alone
    return not run.answers.has_class or spec.response_model is not None


def require_code(run: RunContext, code: str | None) -> None:
    """Refuse to check answers by other code than that of this digest.

    A process that lives long may have the code of the day on which it was started.

    Raises:
        SpecError: this process loads other code.
    """
    if run.answers.code != code and isinstance(run.spec, EnrichmentSpec):
        raise SpecError(_another_version(run.spec))


def _another_version(spec: EnrichmentSpec) -> str:
    return (
        f"response_model: this process loads another version of {spec.response_model} than the "
        "one that the run began with; give both processes the same code."
    )
