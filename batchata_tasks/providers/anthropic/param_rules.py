"""Parameters that Claude models are known to refuse: each line would end in a 400.

Only what is documented or was reported of the API is refused, and only of models that go by
Anthropic's names; what a model may take goes through. Sources:

- https://platform.claude.com/docs/en/build-with-claude/thinking-troubleshooting: which model
  rejects which type of thinking.
- https://platform.claude.com/docs/en/build-with-claude/extended-thinking: the budget of thinking,
  and no forced tool beside it.
- https://platform.claude.com/docs/en/models/fable-5-1/migration-guide and
  can1357/oh-my-pi#12939: which models take no forced tool.
- `stop_sequences` without a character that is no blank: BerriAI/litellm#3286.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"claude-(fable|mythos|haiku|sonnet|opus)-(\d)(?:-(\d)(?!\d))?")
_PREVIEW = "claude-mythos-preview"
_THINKING = ("adaptive", "between_tools", "disabled", "enabled")
_INSTEAD = {
    "disabled": "write `thinking: {type: between_tools}`",
    "enabled": "write `thinking: {type: adaptive}`",
    "adaptive": "write `thinking: {type: enabled, budget_tokens: …}`",
    "between_tools": "remove `thinking`",
}
_LEAST_BUDGET = 1024
_ALWAYS_THINK = ("fable", "mythos")
_FORCED = ("any", "tool")
_UNFORCED = {("fable", 5, 1), ("mythos", 5, 1), ("opus", 5, 5)}
# of OpenAI's API; Anthropic's answers "Extra inputs are not permitted"
_FOREIGN = {
    "stop": "write `stop_sequences`",
    "user": "write `metadata: {user_id: …}`",
    **dict.fromkeys(
        (
            *("effort", "frequency_penalty", "logit_bias", "logprobs", "presence_penalty"),
            *("reasoning", "reasoning_effort", "seed", "top_logprobs", "verbosity"),
        ),
        "remove it",
    ),
}


def check(model: str, params: Mapping[str, Any]) -> None:
    """Refuse parameters that a model is known to refuse; see `Checks.check_params`."""
    if not model.startswith("claude-"):
        return
    problem = (
        _foreign_problem(params)
        or _stop_problem(params)
        or _thinking_problem(model, params)
        or _tool_problem(model, params)
    )
    if problem is not None:
        message = f"params.{problem}"
        raise SpecError(message)


def check_budget(max_tokens: int, params: Mapping[str, Any]) -> None:
    """Refuse a budget of thinking that leaves nothing of the cap; see `Checks.check_cap`."""
    budget = _whole(as_dict(params.get("thinking")).get("budget_tokens"))
    if budget is not None and budget >= max_tokens:
        message = (
            f"params.thinking.budget_tokens: {budget:,} is not below max_tokens ({max_tokens:,}), "
            "of which thinking is a part; lower it, or raise max_tokens."
        )
        raise SpecError(message)


def _foreign_problem(params: Mapping[str, Any]) -> str | None:
    name = next((name for name in params if name in _FOREIGN), None)
    return None if name is None else f"{name}: Anthropic's API has none; {_FOREIGN[name]}."


def _stop_problem(params: Mapping[str, Any]) -> str | None:
    stops = params.get("stop_sequences")
    if stops is None:
        return None
    if not isinstance(stops, list) or not all(
        isinstance(stop, str) and stop.strip() for stop in cast("list[object]", stops)
    ):
        return (
            "stop_sequences: Anthropic takes a list of texts, each with more than blanks; "
            "write one, or remove it."
        )
    return None


def _thinking_problem(model: str, params: Mapping[str, Any]) -> str | None:
    if params.get("thinking") is None:
        return None
    thinking = as_dict(params["thinking"])
    kind = thinking.get("type")
    if kind not in _THINKING:
        return f"thinking.type: {kind!r:.40} is unknown; write one of {', '.join(_THINKING)}."
    if remedy := _refused(model, kind):
        return f"thinking.type: {model} refuses {kind!r}; {remedy}."
    budget = thinking.get("budget_tokens")
    if kind == "enabled" and (_whole(budget) or 0) < _LEAST_BUDGET:
        return (
            f"thinking.budget_tokens: {budget!r:.40} is no budget; "
            f"write a number of tokens from {_LEAST_BUDGET:,} on."
        )
    return None


def _refused(model: str, kind: str) -> str | None:
    """Return the remedy if a model refuses a type of thinking, else None."""
    family, *version = _version(model)
    always = family in _ALWAYS_THINK or (family == "opus" and version >= [5, 5])
    if kind == "disabled" and (always or model.startswith(_PREVIEW)):
        return "it always thinks: remove `thinking`"
    refused = {
        "disabled": family == "sonnet" and version >= [5, 5],
        "enabled": version >= [4, 7],
        "adaptive": family is not None and version <= [4, 5],
        "between_tools": family is not None and (version < [5, 5] or family == "opus"),
    }
    return _INSTEAD[kind] if refused[kind] else None


def _tool_problem(model: str, params: Mapping[str, Any]) -> str | None:
    choice = as_dict(params.get("tool_choice")).get("type")
    if choice not in _FORCED:
        return None
    if tuple(_version(model)) in _UNFORCED:
        return f"tool_choice: {model} takes no forced tool ({choice}); write `{{type: auto}}`."
    if as_dict(params.get("thinking")).get("type") == "enabled":
        return f"tool_choice: a forced tool ({choice}) goes with no thinking; remove one of them."
    return None


def _version(model: str) -> tuple[str | None, int, int]:
    """Return a model's family and version, such as (opus, 5, 5); None if its name tells none."""
    found = _NAME.match(model)
    return (None, 0, 0) if found is None else (found[1], int(found[2]), int(found[3] or 0))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
