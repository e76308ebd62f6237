"""Parameters that OpenAI's models are known to refuse: each line would end in a 400.

Only what is documented or was reported of the API is refused, and only of models that go by
OpenAI's names; what a model may take goes through. Sources:

- https://developers.openai.com/api/docs/guides/latest-model (parameter compatibility): from
  gpt-5.1 on, temperature, top_p and logprobs go with the effort none alone; older models that
  reason never take them. Without an effort, gpt-5.1 to 5.4 do not reason, and later models do
  (UKGovernmentBEIS/inspect_ai#5242 tried them).
- https://github.com/openai/openai-openapi, `ReasoningEffort`: which models take which effort.
- `stop`: the SDK's own types for o3 and o4-mini; huggingface/smolagents#1671 and #1868 for gpt-5
  and gpt-5.1, which refuses it without an effort, too. No report tells of the others with none.
- Penalties and `logit_bias`: https://platform.openai.com/docs/guides/reasoning (limitations).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.providers.openai.regions import version_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_OWN = re.compile(r"(?:ft:)?(?:gpt-\d|o\d|chatgpt-)")
_O_SERIES = re.compile(r"(?:ft:)?o\d")
# models of this name answer at once, as older ones do: OpenAI's "instant" models
_INSTANT = "-chat"
_QUIET = re.compile(r"gpt-5\.[1-4](?:-mini|-nano)?(?:-\d{4}-\d{2}-\d{2})?")
_TAKES_STOP = re.compile(r"(?:ft:)?(?:o1|o3-mini)")
# documented, of both endpoints: https://platform.openai.com/docs/api-reference/chat/create
_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "top_logprobs": (0, 20),
}
_MOST_STOPS = 4  # documented: "Up to 4 sequences"

# by their defaults, which all models take
_SAMPLING: dict[str, tuple[object, ...]] = {
    "temperature": (None, 1),
    "top_p": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None,),
}
_SHAPING: dict[str, tuple[object, ...]] = {
    "stop": (None, []),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
}


def check(model: str, params: Mapping[str, Any]) -> None:
    """Refuse parameters that a model is known to refuse; see `Checks.check_params`."""
    if _OWN.match(model) is None:
        return
    place, effort = _effort(params)
    problem = _effort_problem(model, place, effort) or _stop_problem(params) or _out_of(params)
    if problem is None and _reasons(model):
        problem = _reasoning_problem(model, params, place, effort)
    if problem is not None:
        message = f"params.{problem}"
        raise SpecError(message)


def _effort(params: Mapping[str, Any]) -> tuple[str, object]:
    """Return the effort that is asked for, after the endpoint's name of it."""
    if "reasoning" in params:
        return "reasoning.effort", as_dict(params["reasoning"]).get("effort")
    return "reasoning_effort", params.get("reasoning_effort")


def _reasons(model: str) -> bool:
    if _INSTANT in model:
        return False
    return _O_SERIES.match(model) is not None or version_of(model) >= (5, 0)


def _efforts(model: str) -> tuple[str, ...]:
    """Return the efforts that a model may know: all, unless it is documented which."""
    version = version_of(model)
    if _O_SERIES.match(model):
        return ("low", "medium", "high")
    if "-pro" in model and version == (5, 0):
        return ("high",)
    if version == (5, 0):
        return ("minimal", "low", "medium", "high")
    if version == (5, 1):
        most = ("xhigh",) if "codex-max" in model else ()
        return ("none", "low", "medium", "high", *most)
    return _EFFORTS


def _effort_problem(model: str, place: str, effort: object) -> str | None:
    if effort is None or _INSTANT in model:
        return None
    if not _reasons(model):
        return f"{place}: {model} does not reason and would refuse every line; remove it."
    efforts = _efforts(model)
    if effort in efforts:
        return None
    return f"{place}: {model} knows no effort {effort!r:.40}; write {_either(efforts)}."


def _stop_problem(params: Mapping[str, Any]) -> str | None:
    stops = params.get("stop")
    if isinstance(stops, list) and len(cast("list[object]", stops)) > _MOST_STOPS:
        return f"stop: OpenAI takes up to {_MOST_STOPS} sequences; remove the others."
    return None


def _out_of(params: Mapping[str, Any]) -> str | None:
    """Return which number is beyond what is documented."""
    for name, (least, most) in _RANGES.items():
        value = params.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and least <= value <= most):
            return f"{name}: {value!r:.40} is no number from {least} to {most}; write one."
    return None


def _reasoning_problem(
    model: str, params: Mapping[str, Any], place: str, effort: object
) -> str | None:
    """Return what a model that reasons refuses, unless it is told not to reason."""
    can_be_quiet = "none" in _efforts(model)
    told_quiet = can_be_quiet and effort == "none"
    quiet = told_quiet or (effort is None and _QUIET.fullmatch(model) is not None)
    remedy = f", or write `{_quietly(place)}`" if can_be_quiet else ""
    for name, harmless in _SAMPLING.items():
        if name in params and not _is_one_of(params[name], harmless) and not quiet:
            takes = " takes only the default (1) and" if 1 in harmless else ""
            return f"{name}: {model}{takes} would refuse every line; remove it{remedy}."
    # before gpt-5.2 not even the effort none helps
    quiet, remedy = (told_quiet, remedy) if version_of(model) > (5, 1) else (False, "")
    for name, harmless in _SHAPING.items():
        if name not in params or _is_one_of(params[name], harmless) or quiet:
            continue
        if name == "stop" and _TAKES_STOP.match(model):
            continue
        return f"{name}: {model} would refuse every line with it; remove it{remedy}."
    return None


def _quietly(place: str) -> str:
    return "reasoning: {effort: none}" if place == "reasoning.effort" else "reasoning_effort: none"


def _is_one_of(value: object, values: Iterable[object]) -> bool:
    # true equals 1, and is no temperature
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)


def _either(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
