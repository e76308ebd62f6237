"""Upper bounds of tokens, counted in bytes of the request body.

No tokenizer makes more tokens than there are bytes of UTF-8 text, and the body holds all of the
text, JSON's own punctuation on top. What providers add around it is covered by stated overheads:
markers around each message and, for structured output, the instructions that explain the schema.
"""

from __future__ import annotations

BASE_OVERHEAD = 80  # around the request as a whole and its system prompt
MESSAGE_OVERHEAD = 16
SCHEMA_OVERHEAD = 512


def input_bound(size: int, messages: int, *, schema: bool) -> int:
    """Return a number of input tokens that a request of that many messages cannot exceed.

    `size` is the number of bytes of its body.
    """
    overhead = BASE_OVERHEAD + MESSAGE_OVERHEAD * messages + (SCHEMA_OVERHEAD if schema else 0)
    return size + overhead
