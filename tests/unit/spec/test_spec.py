"""Specs: every key's default and bounds, and one sentence for each error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydantic import BaseModel

from batchata_tasks.common.errors import SpecError
from batchata_tasks.sources.forms import SheetSource
from batchata_tasks.spec.enrichment import EnrichmentSpec
from batchata_tasks.spec.loading import load_spec, parse_spec
from batchata_tasks.spec.references import load_model

if TYPE_CHECKING:
    from pathlib import Path

BASE: dict[str, Any] = {
    "name": "n",
    "source": "s.csv",
    "key": "k",
    "model": "claude-haiku-5-5",
    "prompt": "{{ k }}",
    "output": "out",
}
MODEL = (
    "from pydantic import BaseModel\n\n\nclass Topic(BaseModel):\n    label: str\n\n\nclass "
    "Other:\n    pass\n\n\ntopic = Topic(label='x')\n"
)


def spec(**values: Any) -> EnrichmentSpec:
    return parse_spec({**BASE, **values})


def refusal(**values: Any) -> str:
    with pytest.raises(SpecError) as caught:
        spec(**values)
    text = str(caught.value)
    assert text.startswith("spec: ")
    assert "\n" not in text
    return text.removeprefix("spec: ")


DEFAULTS = {
    "spec_version": 1,
    "where": None,
    "limit": None,
    "types": {},
    "on_null": "error",
    "provider": None,
    "endpoint": "chat",
    "credentials": None,
    "system": None,
    "prompt_file": None,
    "messages": None,
    "response_model": None,
    "response_schema": None,
    "max_tokens": 1024,
    "params": {},
    "columns": None,
    "on_missing": "keep",
    "max_missing_share": 0.2,
    "items_per_batch": None,
    "max_parallel_batches": 10,
    "cost_limit_usd": None,
    "rerun_on": ["new", "input", "prompt", "model", "schema", "failed"],
    "max_attempts": 3,
    "raw_files": True,
    "retention": None,
    "time_limit": None,
    "delete_results": False,
    "budget": None,
    "pilot": None,
    "cache": False,
    "csv": None,
    "file": None,
    "document_root": None,
    "on_bad_document": "error",
    "enable_citations": False,
    "min_grade": None,
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_the_published_defaults(key: str) -> None:
    """A key that a spec leaves out has its documented default."""
    assert getattr(spec(), key) == DEFAULTS[key]


def test_every_key_is_tested() -> None:
    """A key added to the spec gets its default pinned here."""
    assert EnrichmentSpec.model_fields.keys() == {*DEFAULTS, *BASE, "fail_if"}
    assert spec().fail_if.failed_share is None
    assert all(field.description for field in EnrichmentSpec.model_fields.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spec_version", 1),
        ("limit", 1),
        ("limit", 10**9),
        ("max_tokens", 1),
        ("items_per_batch", 1),
        ("max_parallel_batches", 1),
        ("max_parallel_batches", 1000),
        ("cost_limit_usd", 0),
        ("cost_limit_usd", 0.000001),
        ("cost_limit_usd", 1_000_000),
        ("max_attempts", 1),
        ("fail_if", {"failed_share": 0}),
        ("fail_if", {"failed_share": 1}),
        ("name", "A"),
        ("name", "a" * 100),
        ("name", "1.x_y-z"),
        ("on_null", "empty"),
        ("time_limit", "0.5s"),
        ("time_limit", "90m"),
        ("delete_results", True),
        ("retention", "0.5s"),
        ("retention", "30d"),
        ("on_null", "skip"),
        ("rerun_on", []),
        ("rerun_on", ["failed", "new"]),
        ("columns", []),
        ("key", ["a", "b"]),
        ("types", dict.fromkeys("abcdefg", "decimal")),
        ("provider", "openai"),
        ("system", ""),
        ("raw_files", False),
        ("params", {"a": {"b": [1]}}),
    ],
)
def test_values_at_their_bounds_are_taken(key: str, value: object) -> None:
    """The least and the greatest value of each key are accepted."""
    assert key in spec(**{key: value}).model_fields_set


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spec_version", 2),
        ("spec_version", "1"),
        ("limit", 0),
        ("limit", -1),
        ("limit", 1.5),
        ("limit", "many"),
        ("max_tokens", 0),
        ("items_per_batch", 0),
        ("max_parallel_batches", 0),
        ("max_parallel_batches", 1001),
        ("cost_limit_usd", -0.01),
        ("cost_limit_usd", float("nan")),
        ("cost_limit_usd", float("inf")),
        ("cost_limit_usd", 1e10),
        ("cost_limit_usd", "five"),
        ("max_attempts", 0),
        ("fail_if", {"failed_share": 1.01}),
        ("fail_if", {"failed_share": -1}),
        ("fail_if", {"share": 1}),
        ("fail_if", 0.5),
        ("name", ""),
        ("name", "a b"),
        ("name", "-a"),
        ("name", "a" * 101),
        ("name", "a/b"),
        ("name", "a\n"),
        ("source", ""),
        ("source", None),
        ("output", ""),
        ("model", ""),
        ("key", []),
        ("key", None),
        ("key", 1),
        ("key", [1]),
        ("on_null", "ignore"),
        ("rerun_on", ["changed"]),
        ("rerun_on", "new"),
        ("types", {"a": "string"}),
        ("types", ["a"]),
        ("provider", "azure"),
        ("endpoint", "batch"),
        ("credentials", "sk-ant-api03-Ab"),
        ("credentials", "a" * 61),
        ("credentials", ""),
        ("on_missing", "drop"),
        ("max_missing_share", 1.1),
        ("max_missing_share", True),
        ("columns", "a"),
        ("params", []),
        ("messages", []),
        ("where", 1),
        ("raw_files", "perhaps"),
        ("retention", "30"),
        ("retention", "0d"),
        ("retention", "a month"),
        ("prompt", 5),
    ],
)
def test_values_beyond_their_bounds_are_refused(key: str, value: object) -> None:
    """Any other value is one sentence that names the key."""
    more = {"prompt": None} if key == "messages" else {}
    assert f"`{key}" in refusal(**{**more, key: value})


@pytest.mark.parametrize("key", BASE)
def test_a_missing_key_is_named(key: str) -> None:
    """A required key that is missing is named."""
    with pytest.raises(SpecError, match=f"`{key}`"):
        parse_spec({name: value for name, value in BASE.items() if name != key})


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("promt", "did you mean `prompt`?"),
        ("max_token", "did you mean `max_tokens`?"),
        ("cost_limit", "did you mean `cost_limit_usd`?"),
        ("itemsperbatch", "did you mean `items_per_batch`?"),
        ("Model", "did you mean `model`?"),
        ("zzz", "remove it"),
        ("", "remove it"),
    ],
)
def test_an_unknown_key_is_never_ignored(key: str, remedy: str) -> None:
    """A misspelt key is refused with the one that was meant: an ignored limit is no limit."""
    text = refusal(**{key: 1})
    assert text.startswith(f"unknown key `{key}`; ")
    assert remedy in text


def test_a_table_of_documents_has_its_key() -> None:
    """The key of a table of documents is the path, unless the spec has another one."""
    documents = {"source": {"documents": "inbox/*.pdf"}}
    keys = {key: value for key, value in BASE.items() if key not in ("source", "key")}
    assert parse_spec({**keys, **documents}).key == ["path"]
    assert parse_spec({**keys, **documents, "key": "sha256"}).key == ["sha256"]


@pytest.mark.parametrize("key", ["document_root", "enable_citations"])
def test_keys_about_documents_need_one(key: str) -> None:
    """A key about documents is refused by name where no row has one."""
    value = True if key == "enable_citations" else "docs"
    sentence = f"`{key}` is about documents; write `file` as well, or remove it."
    assert refusal(**{key: value}) == sentence
    assert spec(**{key: value, "file": "{{ path }}"}).file == ["{{ path }}"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"prompt": None},
            "give exactly one of `prompt`, `prompt_file` and `messages` (found none)",
        ),
        ({"prompt_file": "p.txt"}, "(found prompt and prompt_file)"),
        ({"messages": [{"role": "user", "content": "x"}]}, "(found prompt and messages)"),
        (
            {"prompt": None, "system": "s", "messages": [{"role": "user", "content": "x"}]},
            "`system` goes with `prompt`",
        ),
        (
            {"prompt": None, "messages": [{"role": "assistant", "content": "x"}]},
            "must end with a turn of role user",
        ),
        ({"prompt": None, "messages": [{"role": "human", "content": "x"}]}, "`messages.0.role`"),
        ({"prompt": None, "messages": [{"role": "user"}]}, "`messages.0.content`"),
        (
            {"response_model": "m.py:M", "response_schema": {}},
            "give `response_model` or `response_schema`, not both",
        ),
        ({"key": ["a", "b", "a"]}, "`key` names 'a' twice"),
        ({"columns": ["a", "a"]}, "`columns` names 'a' twice"),
    ],
)
def test_contradictions_are_told(values: dict[str, Any], sentence: str) -> None:
    """Keys that exclude each other are refused with the way out."""
    assert sentence in refusal(**values)


@pytest.mark.parametrize("data", [[], "x", None, 5, {1: 2}])
def test_anything_that_is_no_spec_is_refused(data: Any) -> None:
    """Lists, texts and keys that are no text are refused in a sentence."""
    with pytest.raises(SpecError, match=r"^spec: "):
        parse_spec(data)


def test_one_key_is_a_list_of_one() -> None:
    """`key: name` and `key: [name]` are one."""
    assert spec(key="a") == spec(key=["a"])


def test_carried_columns_begin_with_the_key() -> None:
    """The dataset's source columns are the key, then `columns`, each once."""
    assert spec(key=["a", "b"], columns=["c", "b"]).carried == ["a", "b", "c"]
    assert spec(key="a").carried == ["a"]


def test_a_spec_is_frozen_and_survives_json() -> None:
    """The ledger's form of a spec reads back as the same spec."""
    full = spec(
        columns=["c"],
        types={"c": "int"},
        params={"stop": ["x"]},
        fail_if={"failed_share": 0.5},
        cost_limit_usd=0.1,
        messages=None,
    )
    assert parse_spec(json.loads(json.dumps(full.model_dump(mode="json")))) == full
    with pytest.raises(ValueError, match="frozen"):
        full.limit = 5


def test_turns(tmp_path: Path) -> None:
    """System and prompt become turns; a prompt file is read; messages stay as they are."""
    assert [(t.role, t.content) for t in spec(system="s").turns()] == [
        ("system", "s"),
        ("user", "{{ k }}"),
    ]
    assert [t.role for t in spec(system="").turns()] == ["user"]
    (tmp_path / "p.txt").write_text("größe {{ k }}\n", encoding="utf-8")
    assert [t.content for t in spec(prompt=None, prompt_file=str(tmp_path / "p.txt")).turns()] == [
        "größe {{ k }}\n"
    ]
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    assert [t.content for t in spec(prompt=None, messages=turns).turns()] == ["a", "b", "c"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_prompt_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing or not UTF-8: the key and the file are named."""
    path = tmp_path / "p.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=r"^prompt_file: .*p\.txt"):
        spec(prompt=None, prompt_file=str(path)).turns()


# --- files and overrides --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_yaml_and_json_are_one(tmp_path: Path, suffix: str) -> None:
    """Either form of a file gives the same spec."""
    path = tmp_path / f"spec.{suffix}"
    path.write_text(
        yaml.safe_dump(BASE) if suffix == "yaml" else json.dumps(BASE), encoding="utf-8"
    )
    assert load_spec(path) == spec()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('"max_tokens": 5000', "the key max_tokens is given twice; remove one"),
        ('"params": {"stop": [], "stop": ["x"]}', "the key stop is given twice; remove one"),
        (f'"limit": {"9" * 5000}', "Exceeds the limit"),
        (f'"params": {"[" * 100_000}', "it is nested too deeply"),
    ],
)
def test_json_that_no_spec_can_have_is_refused(tmp_path: Path, more: str, reason: str) -> None:
    """Python would take the last of two equal keys, and fail at long numbers and deep lists."""
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({**BASE, "max_tokens": 50})[:-1] + f", {more}}}", encoding="utf-8")
    with pytest.raises(SpecError, match=rf"spec\.json: not valid JSON: {reason}"):
        load_spec(path)


@pytest.mark.parametrize(
    ("pair", "key", "value"),
    [
        ("limit=20", "limit", 20),
        ("prompt=a=b", "prompt", "a=b"),
        ("key=[a, b]", "key", ["a", "b"]),
        ("raw_files=false", "raw_files", False),
        (" model =claude-opus-5", "model", "claude-opus-5"),
        ("cost_limit_usd=0.5", "cost_limit_usd", 0.5),
        ("where=", "where", None),
        ("params={stop: [x]}", "params", {"stop": ["x"]}),
        ("name='007'", "name", "007"),
        ("name=007", "name", "007"),
        ("prompt={{ x }}: {{ y }} # all", "prompt", "{{ x }}: {{ y }} # all"),
        ("where=x == '1' or not y", "where", "x == '1' or not y"),
        ("where=null", "where", None),
        ("source={file: b.xlsx, sheet: S}", "source", SheetSource(file="b.xlsx", sheet="S")),
    ],
)
def test_overrides_are_yaml(tmp_path: Path, pair: str, key: str, value: object) -> None:
    """`--set key=value` replaces one key: YAML, and a text as it stands."""
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({**BASE, "where": "k"}), encoding="utf-8")
    assert getattr(load_spec(path, [pair]), key) == value


def test_the_last_override_wins(tmp_path: Path) -> None:
    """The last of several wins, as on every command line."""
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(BASE), encoding="utf-8")
    assert load_spec(path, ["limit=1", "limit=2"]).limit == 2


@pytest.mark.parametrize("pair", ["limit", "", "limit=[", "nope=1", "limit=many", "=1"])
def test_a_wrong_override_is_refused(tmp_path: Path, pair: str) -> None:
    """No sign, broken YAML, an unknown key or a wrong value: one sentence."""
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(BASE), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(path, [pair])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[1]", "just text", "a: [", "a: !!python/object:os.system x", "\t: x"]
)
def test_a_file_that_is_no_spec_is_named(tmp_path: Path, text: str) -> None:
    """An empty file, a list, broken YAML and YAML that would run code are refused.

    The error has the file's name.
    """
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"spec\.yaml(, line 1)?: "):
        load_spec(path)


def test_a_spec_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path is shown as it was given."""
    with pytest.raises(SpecError, match=r"^SPEC: there is no file .*none\.yaml"):
        load_spec(tmp_path / "none.yaml")


# --- response models ------------------------------------------------------------------------------


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a code root, the working folder, with a model in several places.

    Beside it is a folder that is no root.
    """
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "pack" / "deep").mkdir(parents=True)
    outside.mkdir()
    for path in (
        inside / "m.py",
        inside / "pack" / "n.py",
        inside / "pack" / "deep" / "__init__.py",
        outside / "m.py",
        outside / "o.py",
    ):
        path.write_text(MODEL, encoding="utf-8")
    (inside / "link.py").symlink_to(outside / "o.py")
    (inside / "to_m.py").symlink_to(inside / "m.py")
    (inside / "linked").symlink_to(outside)
    monkeypatch.chdir(inside)
    return [inside]


@pytest.mark.parametrize(
    "reference",
    [
        "m.py:Topic",
        "./m.py:Topic",
        "pack/n.py:Topic",
        "m:Topic",
        "pack.n:Topic",
        "pack.deep:Topic",
        "to_m.py:Topic",
        "{root}/m.py:Topic",
    ],
)
def test_a_model_inside_of_the_roots_is_loaded(roots: list[Path], reference: str) -> None:
    """By file or by module, links within the roots included."""
    model = load_model(reference.format(root=roots[0]), roots)
    assert issubclass(model, BaseModel)
    assert list(model.model_fields) == ["label"]


@pytest.mark.parametrize(
    "reference",
    [
        "../outside/m.py:Topic",
        "{root}/../outside/m.py:Topic",
        "link.py:Topic",
        "linked/m.py:Topic",
        "link:Topic",
        "linked.m:Topic",
        "pack/../../outside/m.py:Topic",
    ],
)
def test_a_model_outside_of_the_roots_is_never_run(roots: list[Path], reference: str) -> None:
    """The real path decides: neither `..` nor a link leads out.

    The file is not even imported.
    """
    for path in (roots[0].parent / "outside").iterdir():
        path.write_text("raise SystemExit('imported')", encoding="utf-8")
    with pytest.raises(
        SpecError, match=r"^response_model: .* lies outside of the code roots .*BATCHATA_CODE_ROOTS"
    ):
        load_model(reference.format(root=roots[0]), roots)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("m.py", "is not of the form"),
        (":Topic", "is not of the form"),
        ("m.py:", "is not of the form"),
        ("m.py:a b", "is not of the form"),
        ("m.py:a.b", "is not of the form"),
        ("m.py:None_", "has no Pydantic model None_"),
        ("m.py:Other", "has no Pydantic model Other"),
        ("m.py:topic", "has no Pydantic model topic"),
        ("none.py:Topic", "there is no file none.py"),
        ("none:Topic", "there is no file none"),
        ("os:Topic", "there is no file os"),
        ("a-b:Topic", "neither a .py file nor a module"),
        ("m.pyc:Topic", "there is no file"),
        ("pack:Topic", "there is no file pack"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(
    roots: list[Path], reference: str, reason: str
) -> None:
    """Any error in the reference is one sentence; installed modules are not searched."""
    with pytest.raises(SpecError) as caught:
        load_model(reference, roots)
    assert str(caught.value).startswith("response_model: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "code", ["1/0", "import nothing_of_this_name", "def f(:", "raise RuntimeError('x')"]
)
def test_a_module_that_fails_is_told(roots: list[Path], code: str) -> None:
    """An error in the user's own file is one sentence with its kind."""
    (roots[0] / "bad.py").write_text(code, encoding="utf-8")
    with pytest.raises(
        SpecError, match=r"^response_model: bad\.py:Topic fails at import: \w+Error"
    ):
        load_model("bad.py:Topic", roots)


def test_a_model_may_refer_to_later_classes(roots: list[Path]) -> None:
    """Forward references inside of the file are resolved."""
    code = (
        "from __future__ import annotations\nfrom pydantic import BaseModel\nclass A(BaseModel):\n"
        "    b: B\nclass B(BaseModel):\n    x: int\n"
    )
    (roots[0] / "forward.py").write_text(code, encoding="utf-8")
    schema = spec(response_model="forward.py:A").schema_of_answers(roots)
    assert schema is not None
    assert schema.canonical == {"object": {"b": {"object": {"x": "integer"}}}}


def test_without_roots_nothing_loads() -> None:
    """BATCHATA_CODE_ROOTS that names no folder is a sentence, not a traceback."""
    with pytest.raises(SpecError):
        load_model("m:Topic", [])


def test_answers_have_a_schema_or_are_text(roots: list[Path]) -> None:
    """Class, inline schema and schema file are equivalent; without one, answers are text."""
    schema = {
        "title": "Topic",
        "type": "object",
        "properties": {"label": {"type": "string"}},
        "required": ["label"],
    }
    (roots[0] / "s.json").write_text(json.dumps(schema), encoding="utf-8")
    schemas = [
        spec(**values).schema_of_answers(roots)
        for values in (
            {"response_model": "m.py:Topic"},
            {"response_schema": schema},
            {"response_schema": "s.json"},
        )
    ]
    assert [one.canonical for one in schemas if one is not None] == [
        {"object": {"label": "string"}}
    ] * 3
    assert spec().schema_of_answers(roots) is None


@pytest.mark.parametrize("content", [None, "{", "[]", "5", "null"])
def test_a_schema_file_that_is_none_is_told(roots: list[Path], content: str | None) -> None:
    """If it is missing, broken or no object, the key is named."""
    if content is not None:
        (roots[0] / "s.json").write_text(content, encoding="utf-8")
    with pytest.raises(SpecError, match=r"^response_schema: "):
        spec(response_schema="s.json").schema_of_answers(roots)


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    """The folder is named, with what is needed instead."""
    with pytest.raises(SpecError, match=r"^SPEC: .* is a folder; name the spec file\.$"):
        load_spec(tmp_path)


def test_yaml_that_cannot_be_read_is_told_by_file_and_line(tmp_path: Path) -> None:
    """The parser's own name for the text is not in the sentence."""
    path = tmp_path / "s.yaml"
    path.write_text("name: a\nprompt: b: c\n")
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    problem = f"{path}, line 2: not valid YAML: mapping values are not allowed here; put a text"
    assert str(caught.value).startswith(problem)


def test_the_models_that_a_file_has_are_named_the_closest_first(tmp_path: Path) -> None:
    """A misspelt name gets the right one in the sentence, the closest first."""
    path = tmp_path / "m.py"
    path.write_text(
        "from pydantic import BaseModel\nclass Author(BaseModel): "
        "...\nclass Ticket(BaseModel): ...\n"
    )
    with pytest.raises(SpecError, match=r"no Pydantic model Tickt; it has Ticket, Author\.$"):
        load_model(f"{path}:Tickt", [tmp_path])
    path.write_text("")
    with pytest.raises(SpecError, match=r"no Pydantic model Tickt; it has none\.$"):
        load_model(f"{path}:Tickt", [tmp_path])
