"""The JSON Schema of a spec: editors are told what the program accepts, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from batchata_tasks.common.errors import SpecError
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.json_schema import PATH, schema_text
from batchata_tasks.spec.loading import parse_spec
from tests.support.paths import ROOT

BASE: dict[str, Any] = {
    "name": "n",
    "source": "s.csv",
    "key": "k",
    "model": "claude-haiku-5-5",
    "prompt": "{{ k }}",
    "output": "out",
}
SCHEMA = json.loads(schema_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

RIGHT = [
    {},
    {"key": ["a", "b"]},
    {"where": None, "csv": {"delimiter": ";", "header": ["a"]}, "types": {"n": "int"}},
    {"prompt": None, "messages": [{"role": "user", "content": "x"}]},
    {"prompt": None, "prompt_file": "p.txt", "system": "s"},
    {"response_model": "models.py:M", "response_schema": None},
    {"budget": {"name": "b", "limit_usd": 3}, "pilot": {"rows": 20}, "time_limit": "90m"},
    {"fail_if": {"failed_share": 0.5}, "rerun_on": ["new"], "cost_limit_usd": 1},
]
WRONG = [
    {"promt": "x"},
    {"name": "a b"},
    {"key": []},
    {"key": 3},
    {"model": ""},
    {"prompt": None},
    {"prompt_file": "p.txt"},
    {"prompt": None, "system": "s", "messages": [{"role": "user", "content": "x"}]},
    {"prompt": None, "messages": [{"role": "robot", "content": "x"}]},
    {"response_model": "m.py:M", "response_schema": "s.json"},
    {"max_tokens": 0},
    {"types": {"n": "integer"}},
    {"csv": {"delimiter": ";;"}},
    {"csv": {"separator": ";"}},
    {"cost_limit_usd": -1},
    {"cost_limit_usd": True},
    {"budget": {"name": "b"}},
    {"budget": {"name": "b", "limit_usd": 1, "period": "year"}},
    {"pilot": {"rows": -1}},
    {"fail_if": {"failed_share": 1.5}},
    {"time_limit": "5"},
    {"max_parallel_batches": 1001},
    {"on_null": "maybe"},
    {"rerun_on": ["never"]},
]


def properties() -> dict[str, dict[str, Any]]:
    """Return the keys of a spec, and those of its parts as part.key."""
    parts: dict[str, Any] = SCHEMA["definitions"]
    inner = {f"{p}.{k}": v for p, d in parts.items() for k, v in d["properties"].items()}
    return {**SCHEMA["properties"], **inner}


def test_the_shipped_file_is_current() -> None:
    """The file in the package says what the program accepts today."""
    remedy = "run `batchata schema` and put what it prints into this file"
    assert PATH.read_text(encoding="utf-8") == schema_text(), f"{PATH}: {remedy}"


@pytest.mark.parametrize("keys", RIGHT, ids=str)
def test_what_the_program_accepts_is_accepted(keys: dict[str, Any]) -> None:
    """An editor marks no key of a spec that runs."""
    parse_spec({**BASE, **keys})
    assert [error.message for error in VALIDATOR.iter_errors({**BASE, **keys})] == []


@pytest.mark.parametrize("keys", WRONG, ids=str)
def test_what_the_program_refuses_is_refused(keys: dict[str, Any]) -> None:
    """An editor marks what the program would refuse."""
    with pytest.raises(SpecError):
        parse_spec({**BASE, **keys})
    assert list(VALIDATOR.iter_errors({**BASE, **keys})) != []


@pytest.mark.parametrize(
    "name", ["deployments/specs/package-topics.yaml", "deployments/specs/invoices.yaml"]
)
def test_shipped_specs_satisfy_it(name: str) -> None:
    """Specs of the project satisfy the schema that their first line names."""
    text = (ROOT / name).read_text(encoding="utf-8")
    VALIDATOR.validate(yaml.safe_load(text))
    first = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (ROOT / name).parent.joinpath(first).resolve() == PATH


def test_every_key_is_described_with_its_default() -> None:
    """Each key says what it means, in words that no page takes for HTML, and its default."""
    keys = properties()
    assert [name for name, key in keys.items() if not key.get("description")] == []
    assert [name for name, key in keys.items() if set("<>") & set(key["description"])] == []
    spec = parse_spec(BASE).model_dump(mode="json")
    required = {*SCHEMA["required"], *SCHEMA["else"]["required"]}
    optional = EnrichmentSpec.model_fields.keys() - required
    assert {name: keys[name]["default"] for name in optional} == {
        name: None if name == "prompt" else spec[name] for name in optional
    }
    assert required == BASE.keys() - {"prompt"}
