"""The name of the cap on an answer's tokens in chat requests.

OpenAI's own models take `max_completion_tokens`; those that reason refuse the older `max_tokens`
(https://platform.openai.com/docs/api-reference/chat/create). Other servers of that API may know
the older name alone (Together's and Mistral's types have no other), and one that ignores a name
that it does not know answers without a cap, so that no bound holds.
"""

from __future__ import annotations

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.settings import Settings

CAPS = ("max_completion_tokens", "max_tokens")


def cap_name(*, official: bool) -> str:
    """Return the name of the cap, as `BATCHATA_OPENAI_CAP` has it.

    `official` says whether requests go to OpenAI's own host.

    Raises:
        SpecError: the older name is set for OpenAI's own host, whose newer models refuse it.
    """
    name = Settings().openai_cap
    if name != CAPS[0] and official:
        message = (
            f"BATCHATA_OPENAI_CAP: {name} is for other servers of the API, and requests go to "
            "OpenAI itself, whose models that reason refuse it; unset the variable."
        )
        raise SpecError(message)
    return name
