"""Keys that providers quote reach no file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchata_tasks.providers.keys import without_keys

KEY = "sk-0123456789abcdefghijklmnop"


@given(st.lists(st.sampled_from([KEY, KEY[:9], KEY[9:], "text ", "\n"])), st.integers(1, 40))
def test_a_key_is_masked_wherever_blocks_of_results_end(parts: list[str], size: int) -> None:
    """All of it becomes stars, nothing else changes, and no byte is lost."""
    whole = "".join(parts).encode()
    blocks = [whole[at : at + size] for at in range(0, len(whole), size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        assert b"".join(without_keys(blocks)) == whole.replace(KEY.encode(), b"*" * len(KEY))


def test_a_short_key_is_a_word_that_answers_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that take any key get `local` or `EMPTY`, and answers keep these words."""
    monkeypatch.setenv("OPENAI_API_KEY", "local")
    assert b"".join(without_keys([b"a local", b" answer"])) == b"a local answer"
