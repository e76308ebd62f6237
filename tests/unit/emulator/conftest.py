"""One emulator for all tests here, emptied before each, and both SDKs pointed at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anthropic
import openai
import pytest

from batchata_tasks.emulator import ControlClient, Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def running() -> Iterator[Emulator]:
    """Run an emulator in a thread."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    """Empty the emulator."""
    running.control.reset()
    return running


@pytest.fixture
def control(emulator: Emulator) -> ControlClient:
    """Return the emulator's controls."""
    return emulator.control


@pytest.fixture
def claude(emulator: Emulator) -> Iterator[anthropic.Anthropic]:
    """Open Anthropic's own client, which refuses answers that do not have the documented shape."""
    with anthropic.Anthropic(
        api_key="some-key",
        base_url=emulator.anthropic_url,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
def gpt(emulator: Emulator) -> Iterator[openai.OpenAI]:
    """Open OpenAI's own client, which refuses answers that do not have the documented shape."""
    with openai.OpenAI(
        api_key="some-key",
        base_url=emulator.openai_url,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client
