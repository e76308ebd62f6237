"""What of a plan would wait for room in a provider's queue, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.common.text import pluralize
from batchata_tasks.execution.queue_room import amount_of_tokens, shortened
from batchata_tasks.ledger import Queue
from batchata_tasks.providers.queue_file import load_queue_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchata_tasks.common.settings import Settings
    from batchata_tasks.ledger import Ledger
    from batchata_tasks.planning.estimate import Estimate
    from batchata_tasks.planning.packing import PlannedChunk
    from batchata_tasks.planning.route import Route
    from batchata_tasks.providers import QueueRule


def queueing(
    routes: Sequence[Route],
    ledger: Ledger | None,
    chunks: Sequence[PlannedChunk],
    likely: Sequence[Estimate],
    settings: Settings,
) -> tuple[str, ...]:
    """Return a sentence for each queue that has too little room for the chunks of a plan.

    `likely` is what each chunk is likely to use. Queues whose size nobody knows are left out.
    """
    limits, wanted = load_queue_limits(settings.queues), dict[tuple[str, str], int]()
    rules = dict[tuple[str, str], "QueueRule"]()
    stated, accounts = dict[tuple[str, str], int | None](), dict[str, str]()
    for chunk, one in zip(chunks, likely, strict=True):
        route = routes[chunk.route]
        if (rule := route.provider.queue) is None:
            continue
        which = route.provider.name, route.model if rule.per_model else ""
        rows = chunk.stop - chunk.start
        amount = rows if rule.counts == "requests" else amount_of_tokens(one.input_tokens)
        wanted[which] = wanted.get(which, 0) + amount
        rules[which], stated[which] = rule, limits.of(*which)
        accounts[which[0]] = "" if ledger is None else route.provider.account(ledger.id)
    texts = list[str]()
    for (name, model), amount in wanted.items():
        taken, told = 0, None
        if ledger is not None:
            taken, told = ledger.holds(Queue(accounts[name], model))
        known = [most for most in (stated[name, model], told) if most is not None]
        if known and amount > min(known) - taken:
            what = f"{rules[name, model].counts}{f' of {model}' if model else ''}"
            texts.append(_in_words(name, what, min(known), taken, amount))
    return tuple(texts)


def _in_words(provider: str, what: str, most: int, taken: int, amount: int) -> str:
    """Say that chunks have more of something than a queue has room for."""
    text = f"{provider} holds {shortened(most)} {what} at a time, and these have "
    text += f"about {shortened(amount)}: "
    if taken:
        return f"{text}{shortened(taken)} are there, so that some wait until there is room"
    return f"{text}they go in at least {pluralize(-(-amount // most), 'turn')}, as batches end"
