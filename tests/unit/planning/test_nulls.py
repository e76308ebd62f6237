"""A null in a template is none and prints nothing; prompts that took it for "" keep their text."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batchata_tasks.common.errors import InputError, SourceError
from batchata_tasks.planning.templates import RowTemplate, variables
from batchata_tasks.planning.values import shown
from tests.support.by_day import examples

FORMER = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
ROW: dict[str, Any] = {
    "n": None,
    "t": "Tea for two",
    "k": 7,
    "o": {"x": None, "y": 1},
    "tags": ["a", None],
}


def where() -> str:
    return "row 2 (id=1)"


def rendered(text: str, row: dict[str, Any] = ROW) -> str:
    return RowTemplate("prompt", text, list(row)).render(variables(shown(row, row)), where)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ n is none }} {{ k is none }}", "True False"),
        ("{{ n is not none and n > 3 }} {{ k is not none and k > 3 }}", "False True"),
        ("{% if n is none %}unknown{% else %}{{ n }}{% endif %}", "unknown"),
        (
            "{{ n | default('n/a', true) }} {{ n | d('n/a', true) }} {{ n | default('x') }}|",
            "n/a n/a |",
        ),
        ("{{ n or 'x' }} {{ 'y' if n is none else n }}", "x y"),
        (
            "{{ n == none }} {{ none == n }} {{ n != none }} {{ n in [none] }}",
            "True True False True",
        ),
        ("{{ n is sameas none }} {{ n is string }} {{ t is string }}", "True False True"),
        ("{{ n is number }} {{ n is mapping }} {{ n is defined }}", "False False True"),
        ("{{ n | tojson }} {{ {'a': n} | tojson }}", 'null {"a": null}'),
        ("[{{ n }}]", "[]"),
        ("[{{ none }}] [{{ o.get('z') }}]", "[] []"),
    ],
)
def test_a_template_sees_a_null(text: str, expected: str) -> None:
    """It can ask for a null, compare it and give it another value; printed, it is nothing."""
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ o.x is none }} {{ o['x'] | default('-', true) }} [{{ o.x }}]", "True - []"),
        ("{% for tag in tags %}<{{ tag }}>{% endfor %}", "<a><>"),
        ("{% for name, x in o.items() %}{{ name }}={{ x }};{% endfor %}", "x=;y=1;"),
        ("{{ tags | join(',') }} {{ tags | reject('none') | list }}", "a, ['a']"),
        ("{{ o | tojson }} {{ tags | tojson }}", '{"x": null, "y": 1} ["a", null]'),
        ("{{ o }} {{ tags }}", "{'x': None, 'y': 1} ['a', None]"),
    ],
)
def test_a_null_within_a_value_is_one_too(text: str, expected: str) -> None:
    """In lists and objects the rules are the same; where these are printed whole, it is None."""
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": "Größe <1 & 'x'", "a": 1}, '{"b": "Größe <1 & \'x\'", "a": 1}'),
        (
            [date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.10")],
            '["2026-01-02", "2026-01-02T00:00:00+00:00", "1.10"]',
        ),
    ],
)
def test_json_is_written_for_a_model(value: object, expected: str) -> None:
    """`| tojson` writes letters as they are, in the order of the row, and times as texts."""
    template = RowTemplate("prompt", "{{ v | tojson }}", ["v"])
    assert template.render(variables(shown({"v": value}, ["v"])), lambda: "a row") == expected


def test_json_that_there_is_not() -> None:
    """What JSON has no text for is refused, and an indent is heeded."""
    template = RowTemplate("prompt", "{{ v | tojson(2) }}", ["v"])
    assert template.render({"v": [1]}, lambda: "a row") == "[\n  1\n]"
    with pytest.raises(SourceError, match="bytes is not JSON; print it by itself"):
        template.render({"v": [b"x"]}, lambda: "a row")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ n > 3 }}", "a null cannot be compared with 3; ask for it first"),
        ("{{ 3 >= n }}", "a null cannot be compared with 3; ask for it first"),
        ("{{ n + 1 }}", "a null cannot be added to 1; ask for it first"),
        ("{{ 1 + n }}", "a null cannot be added to 1; ask for it first"),
        ("{{ n.title }}", "a null has no attribute 'title'"),
        ("{{ n.items() }}", "a null has no attribute 'items'"),
    ],
)
def test_a_null_is_no_number_and_no_object(text: str, words: str) -> None:
    """What makes no sense with a null is refused in words about nulls, with row and remedy."""
    with pytest.raises(SourceError) as caught:
        rendered(text)
    assert str(caught.value).startswith(f"prompt: the template fails on row 2 (id=1): {words}")


FILTERS = (
    *("upper", "lower", "title", "capitalize", "trim", "string", "length", "wordcount", "list"),
    *("striptags", "urlencode", "first", "int", "float", "center(5)", "indent", "truncate(4)"),
    *("replace('e', 'x')", "wordwrap(4)", "default('x')", "default('x', true)", "escape", "sort"),
    *("join(',')", "reverse | list", "unique | join", "batch(2) | list", "select | list"),
)
METHODS = ("strip()", "upper()", "split(',')", "startswith('T')", "replace('e', 'x')", "title()")
NAMES = st.sampled_from(["n", "n", "t", "k", "'T'", "''", "3"])
ATOMS = st.one_of(
    NAMES,
    st.builds("({} | {})".format, NAMES, st.sampled_from(FILTERS)),
    st.builds("{}.{}".format, st.sampled_from(["n", "t"]), st.sampled_from(METHODS)),
    st.builds("{}[{}]".format, st.sampled_from(["n", "t"]), st.sampled_from(["0", ":2", "-1:"])),
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(
            "({} {} {})".format,
            inner,
            st.sampled_from(
                ["~", "+", "==", "!=", "<", ">", "<=", ">=", "and", "or", "in", "not in"]
            ),
            inner,
        ),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("(not {})".format, inner),
        st.builds("([{}, {}] | join('-'))".format, inner, inner),
        st.builds("({} | {})".format, inner, st.sampled_from(FILTERS)),
    ),
    max_leaves=5,
)
PIECES = st.one_of(
    st.builds("{{{{ {} }}}}".format, EXPRESSIONS),
    st.builds("{{% if {} %}}yes{{% else %}}no{{% endif %}}".format, EXPRESSIONS),
    st.builds("{{% for x in {} %}}<{{{{ x }}}}>{{% else %}}none{{% endfor %}}".format, EXPRESSIONS),
    st.builds("{{% set v = {} %}}{{{{ v }}}}|{{{{ v ~ n }}}}".format, EXPRESSIONS),
)


@settings(max_examples=examples(50), deadline=None)
@given(text=st.lists(PIECES, min_size=1, max_size=2).map(" ".join))
def test_prompts_that_took_a_null_for_an_empty_text_keep_their_text(text: str) -> None:
    """Text, filters, methods, loops and comparisons: as if the null were an empty text.

    What failed then fails now, some of it before a row is read.
    """
    values = {**ROW, "n": ""}
    try:
        expected = FORMER.from_string(text).render(values)
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError):
        with pytest.raises(InputError):
            rendered(text)
        return
    assert rendered(text) == expected
