"""Loading a spec from YAML or JSON, with one clear sentence for the first mistake in it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson
import yaml
from pydantic import ValidationError

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.validation import describe_keys, first_error
from batchata_tasks.spec.budget_file import FOLDER
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.json_text import parse_json
from batchata_tasks.spec.references import read_text
from batchata_tasks.spec.yaml_text import parse_yaml, problem, written_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from batchata_tasks.spec.yaml_text import WrittenValue

_NULLS = ("", "~", "null", "Null", "NULL")


def load_spec(path: str | Path, overrides: Iterable[str] = ()) -> EnrichmentSpec:
    """Read a spec from YAML or JSON and apply `key=value` overrides.

    Values are YAML, those of keys that are texts are taken as they stand.

    Raises:
        SpecError: the file cannot be read, or a key is unknown, missing or invalid.
    """
    text = read_text("SPEC", Path(path))
    is_json = Path(path).suffix == ".json"
    try:
        # JSON is no part of YAML 1.1: escaped emoji, tabs and exponents would read otherwise
        data = parse_json(text) if is_json else parse_yaml(text)
    except ValueError as error:
        message = f"{path}: not valid JSON: {error}"
        raise SpecError(message) from error
    except yaml.YAMLError as error:
        message = f"{path}{problem(error)}"
        raise SpecError(message) from error
    if not isinstance(data, dict):
        message = f"{path}: a spec is a mapping of keys to values; see the README for an example."
        raise SpecError(message)
    keys, changes = cast("dict[str, Any]", data), _overrides(overrides)

    def written(steps: Sequence[str | int]) -> WrittenValue | None:
        return None if is_json or steps[0] in changes else written_at(text, steps)

    return parse_spec({**keys, **changes}, str(path), Path(path).parent, written)


def parse_spec(
    data: dict[str, Any],
    label: str = "spec",
    folder: Path | None = None,
    written: Callable[[Sequence[str | int]], WrittenValue | None] | None = None,
) -> EnrichmentSpec:
    """Validate a spec; `folder` is that of its file, in which a named budget is looked for first.

    `written` returns how a value is written, by the path of its keys, if that is known.

    Raises:
        SpecError: one sentence about the first key that is invalid.
    """
    for name, value in as_dict(data).items():
        try:
            orjson.dumps(value)
        except TypeError as error:
            message = f"{label}: `{name}`: no request can carry this: {error}."
            raise SpecError(message) from None
    try:
        return EnrichmentSpec.model_validate(data, context={FOLDER: folder})
    except ValidationError as error:
        steps = first_error(error)[1]["loc"]
        value = written(steps) if written is not None and steps else None
        sentence = describe_keys(
            error,
            if_unknown=_similar_key,
            if_missing=lambda _key: "add it.",
            reading=None if value is None else value.reading,
        )
        message = f"{label}{'' if value is None else f', line {value.line}'}: {sentence}"
        raise SpecError(message) from None


def _similar_key(key: str, _value: object) -> str:
    if close := get_close_matches(key, EnrichmentSpec.model_fields, n=1, cutoff=0.7):
        return f"did you mean `{close[0]}`?"
    return "remove it, or see the README for the keys; a parameter of the model goes into `params`."


def _overrides(pairs: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign:
            message = f"--set {pair}: write it as key=value, for example --set limit=20."
            raise SpecError(message)
        values[key.strip()] = _value(key.strip(), text)
    return values


def _value(key: str, text: str) -> Any:
    """Return the value of an override: YAML, but a text as it stands if the key is one.

    A template or a condition would be read as a mapping or a comment. What is in quotes, and the
    words for null, are YAML there, too.
    """
    is_plain = text.strip() not in _NULLS and not text.strip().startswith(("'", '"'))
    if is_plain and _is_text(key):
        return text
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        found = getattr(error, "problem", None) or " ".join(str(error).split())
        message = (
            f"--set {key}: {text!r:.80} is not valid YAML ({found}); write a value as in the "
            "spec, a text in quotes."
        )
        raise SpecError(message) from error


def _is_text(key: str) -> bool:
    """Whether a key of a spec is a text."""
    field = EnrichmentSpec.model_fields.get(key)
    kind: Any = None if field is None else field.annotation
    return kind in (str, str | None)


def overridden(spec: EnrichmentSpec | str, overrides: Mapping[str, Any]) -> EnrichmentSpec:
    """Return a spec, given itself or the path of its file, with some keys replaced."""
    loaded = load_spec(spec) if isinstance(spec, str) else spec
    if not overrides:
        return loaded
    folder = Path(spec).parent if isinstance(spec, str) else None
    given = {**loaded.model_dump(exclude_unset=True), **overrides}
    changed = parse_spec(given, folder=folder)
    if loaded.budget is not None and changed.budget is not None and "budget" not in overrides:
        changed.budget.stated_in(loaded.budget.file)
    return changed
