"""YAML takes some words otherwise than they look: one sentence names the line and what to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchata_tasks.common.errors import SpecError
from batchata_tasks.spec.loading import load_spec

if TYPE_CHECKING:
    from pathlib import Path

LINES = {
    "name": "x",
    "source": "t.csv",
    "key": "id",
    "model": "claude-haiku-5-5",
    "prompt": '"{{ text }}"',
    "output": "out",
}
MISREAD = [
    ("key", "no", "`no` is read as false by YAML"),
    ("key", "On", "`On` is read as true by YAML"),
    ("key", "1_000", "`1_000` is read as a number by YAML"),
    ("key", "2026-01-01", "`2026-01-01` is read as a date by YAML"),
    ("key", "", "it is empty"),
    ("key", "[id, off]", "`off` is read as false by YAML; write that, or put it in quotes."),
    ("response_schema", "{properties: {a: {enum: [NO, SE]}}}", "`NO` is read as false by YAML"),
    ("params", "!!bool maybe", "`maybe` is no value"),
    ("time_limit", "1:30", "`1:30` is read as 90 by YAML"),
    ("max_tokens", "010", "`010` is read as 8 by YAML"),
    ("name", "2026-13-45", "`2026-13-45` is no value"),
    ("prompt", "{{ text }}", "a text with `{{ … }}` goes in quotes, or below `|`"),
    ("prompt", "Label: {{ text }}", "put a text with a colon in it in quotes or below `|`"),
    ("prompt", "[a", "put a text that begins so in quotes"),
    ("prompt", "*a", "put a text that begins with `*` in quotes"),
    ("prompt", "!a", "put a text that begins with `!` in quotes"),
    ("prompt", "@a", "put a text that begins with such a character in quotes"),
    ("prompt", "> a", "let the text begin in the line below its key"),
    ("prompt", "- a", "let a list begin in the line below its key"),
    ("source", r'"C:\data"', "put a text with a backslash in single quotes"),
    ("key", "\tid", "there is a tab: write blanks instead"),
    ("types", "{no: int}", "`no` is read as false by YAML: put it in quotes, as it is a key"),
    ("types", "{7: int}", "`7` is read as a number by YAML: put it in quotes, as it is a key"),
    ("types", "{a: int, a: str}", "the key a is given twice"),
    ("pilot", "{rows: many}", "`pilot.rows`: must be a whole number"),
    ("modle", "x", "unknown key `modle`; did you mean `model`?"),
    ("name", "yes", "must be a text (`yes` is read as true by YAML, unless it is in quotes)."),
    ("name", "007", "`007` is read as 7 by YAML; write that, or, if it is a text, put it in"),
    ("on_null", "no", "or 'pass' (`no` is read as false by YAML, unless it is in quotes)"),
    ("spec_version", "2", "`spec_version`: must be 1 (it is 2)"),
]


def written(folder: Path, lines: list[str]) -> str:
    (folder / "spec.yaml").write_text("\n".join([*lines, ""]))
    return str(folder / "spec.yaml")


def refused(folder: Path, lines: list[str]) -> str:
    path = written(folder, lines)
    with pytest.raises(SpecError) as error:
        load_spec(path)
    return str(error.value).removeprefix(path)


@pytest.mark.parametrize(("key", "value", "words"), MISREAD)
def test_what_yaml_misreads_is_told(key: str, value: str, words: str, tmp_path: Path) -> None:
    """Line, word and remedy; where a word is refused, the same word in quotes is a text."""
    values = {**LINES, key: value}
    told = refused(tmp_path, [f"{name}: {text}" for name, text in values.items()])
    line = list(values).index(key) + 1
    # a list that is not closed is noticed in the line below
    assert told.startswith((f", line {line}: ", f", line {line + (value == '[a')}: "))
    assert words in told
    assert told.endswith((".", "?"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["key: name"], ", line 7: the key key is given twice (first in line 3); remove one."),
        (["no: 1"], ", line 7: `no` is read as false by YAML: put it in quotes, as it is a key."),
        (["---", "name: y"], ", line 7: not valid YAML: found another document; a file has one"),
        (["limit"], ", line 7: not valid YAML: could not find expected ':'; write `key: value`"),
        ([" limit: 1"], ", line 7: not valid YAML: "),
    ],
)
def test_a_line_that_is_no_key_is_told(more: list[str], words: str, tmp_path: Path) -> None:
    """Whatever comes behind a spec that would do: the line itself is named."""
    told = refused(tmp_path, [*(f"{name}: {text}" for name, text in LINES.items()), *more])
    assert told.startswith(words)


def test_words_in_quotes_are_texts(tmp_path: Path) -> None:
    """The remedy works; numbers with `_`, as YAML has them, are numbers, and anchors are kept."""
    values = {**LINES, "key": '["no", "2026-01-01"]', "limit": "1_000", "name": '"007"'}
    lines = [f"{name}: {text}" for name, text in values.items()]
    spec = load_spec(written(tmp_path, [*lines, "types: &t {a: int}", "params: {<<: *t}"]))
    assert (spec.key, spec.limit, spec.name) == (["no", "2026-01-01"], 1000, "007")
    assert spec.params == {"a": "int"}


def test_a_value_of_the_command_line_has_no_line(tmp_path: Path) -> None:
    """Nor has a key that is missing: no line of the file is to blame."""
    lines = [f"{name}: {text}" for name, text in LINES.items()]
    path = written(tmp_path, lines)
    with pytest.raises(SpecError, match=rf"^{path}: `limit`: must be at least 1"):
        load_spec(path, ["limit=0"])
    assert refused(tmp_path, lines[:-1]) == ": the key `output` is missing; add it."


BOMB = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([f"params: {'[' * 3000}{']' * 3000}"], "it is nested too deeply"),
        ([f"limit: {'9' * 5000}"], "` is no value (Exceeds the limit"),
        (["params: !!map x"], "a value has a tag (`!!…`) that does not fit it"),
        (['name: "\\U99999999"'], "it has a character that is none"),
        (["a0: &a0 [x, x]", *BOMB], "its aliases stand for more than 1,000,000 values"),
    ],
)
def test_what_no_spec_can_have_is_refused(lines: list[str], words: str, tmp_path: Path) -> None:
    """It takes neither the time nor the memory that it asks for, and ends in a sentence."""
    assert words in refused(tmp_path, lines)
