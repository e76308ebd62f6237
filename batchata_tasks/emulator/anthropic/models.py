"""The models that the emulated Anthropic API lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.emulator.anthropic.rules import MODELS

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON

_INPUT = 1_000_000
_YES = {"supported": True}
_NO = {"supported": False}
_RETIRES = {"claude-sonnet-4-5": "2026-11-30T00:00:00Z"}


def models() -> list[JSON]:
    """Return every listed model."""
    return [info for name in MODELS if (info := model_info(name)) is not None]


def model_info(name: str) -> JSON | None:
    """Return one model, or None when it is unknown."""
    if name not in MODELS:
        return None
    retires = _RETIRES.get(name)
    line = name.split("-")[1]
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "line": line,
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active" if retires is None else "deprecated",
        "deprecated_at": None if retires is None else "2026-05-01T00:00:00Z",
        "retires_at": retires,
        "max_input_tokens": _INPUT,
        "max_tokens": MODELS[name],
        "capabilities": _capabilities(),
    }


def _capabilities() -> JSON:
    levels = dict.fromkeys(("low", "medium", "high", "xhigh", "max"), _YES)
    types = {"adaptive": _YES, "between_tools": _YES, "disabled": _YES, "enabled": _NO}
    return {
        "batch": _YES,
        "citations": _YES,
        "code_execution": _NO,
        "context_management": {"supported": False},
        "effort": {"supported": True, **levels},
        "image_input": _YES,
        "pdf_input": _YES,
        "server_tools": {"supported": False, "code_execution": _NO, "web_search": _NO},
        "structured_outputs": _YES,
        "thinking": {"supported": True, "types": types},
    }
