"""An emulator of the Anthropic Message Batches API and the OpenAI Batch and Files APIs.

It speaks HTTP on loopback, so that the official SDKs run against it unchanged. Faults, progress and
clock are set by control routes of its own. Its answers are made up and cost nothing.
"""

from batchata_tasks.emulator.answers.lengths import Lengths
from batchata_tasks.emulator.answers.text import answer_text
from batchata_tasks.emulator.control.client import ControlClient, ControlError
from batchata_tasks.emulator.local import Emulator, EmulatorError, EmulatorProcess

__all__ = [
    "ControlClient",
    "ControlError",
    "Emulator",
    "EmulatorError",
    "EmulatorProcess",
    "Lengths",
    "answer_text",
]
