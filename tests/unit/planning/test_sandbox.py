"""An attribute is an item first, and nothing without a text of its own gets into a prompt."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from batchata_tasks.common.errors import SourceError
from batchata_tasks.planning.templates import RowCondition, RowTemplate, variables
from batchata_tasks.planning.values import shown

METHODS = ("items", "keys", "values", "copy", "get", "count", "pop", "update", "title", "index")
ROW: dict[str, Any] = {
    "t": "text",
    "o": {name: f"the {name}" for name in METHODS},
    "bare": {"n": 1, "title": "T"},
    "orders": [{"items": ["pen"]}, {"items": []}],
    "tags": ["a", "b"],
}


def where() -> str:
    return "row 3 (id=2)"


def rendered(text: str) -> str:
    return RowTemplate("prompt", text, list(ROW)).render(variables(shown(ROW, ROW)), where)


@pytest.mark.parametrize("name", METHODS)
def test_an_item_comes_before_a_method(name: str) -> None:
    """`{{ order.items }}` is what the object holds, also in lists and loops, and by `row`."""
    for text in ("o.{}", "o['{}']", "row.o.{}", "[o][0].{}", "{{'x': o}}.x.{}"):
        assert rendered("{{ " + text.format(name) + " }}") == f"the {name}"
    loop = "{% for x in [o] %}{{ x." + name + " }}{% endfor %}"
    assert rendered(loop) == f"the {name}"
    assert RowCondition(f"o.{name} == 'the {name}'", ["o"]).holds(variables(ROW), where)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{% for name, value in bare.items() %}{{ name }}={{ value }} {% endfor %}",
            "n=1 title=T ",
        ),
        ("{% for name, value in o.items() if name == 'get' %}{{ value }}{% endfor %}", "the get"),
        ("{{ bare.get('n') }} {{ bare.get('z', '-') }} {{ bare.keys() | join }}", "1 - ntitle"),
        ("{{ bare.copy() }} {{ bare.values() | list }}", "{'n': 1, 'title': 'T'} [1, 'T']"),
        ("{{ t.upper() }} {{ t.title() }} {{ tags.count('a') }}", "TEXT Text 1"),
        ("{{ '{0.items}'.format(o) }} {{ '{}'.format(t) }}", "the items text"),
        ("{{ orders | map(attribute='items') | list }}", "[['pen'], []]"),
        ("{{ o.items | default('-') }} {{ bare.items | default('-') }}", "the items -"),
        ("{{ bare.items is defined }} {{ bare.n is defined }}", "False True"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(t) }}", "<text>"),
        ("{% set ns = namespace(n=0) %}{% set ns.n = 2 %}{{ ns.n }}", "2"),
        ("{% macro m() %}x{% endmacro %}{% set ns = namespace(f=m) %}{{ ns.f() }}", "x"),
        ("{% for x in tags %}{{ loop.cycle('1', '2') }}{{ loop.index }}{% endfor %}", "1122"),
        ("{% set sep = joiner('-') %}{% for x in tags %}{{ sep() }}{{ x }}{% endfor %}", "a-b"),
    ],
)
def test_what_is_called_is_a_method(text: str, expected: str) -> None:
    """Calls go on working, also where an item has the method's name; so do Jinja's own objects."""
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ bare.items }}", "the object has no attribute 'items'; it has: n, title"),
        ("{{ bare['keys'] }}", "the object has no attribute 'keys'; it has: n, title"),
        ("{% for x in orders %}{{ x.values }}{% endfor %}", "no attribute 'values'; it has: items"),
        ("{{ bare.titel }}", "no attribute 'titel'; did you mean 'title'? It has: n, title"),
        ("{{ {}.x }}", "the object has no attribute 'x'; it has none"),
        ("{{ t.upper }}", "'upper' is a method of a text; call it to print what it gives: upper()"),
        ("{{ t['upper'] }}", "'upper' is a method of a text"),
        ("{{ 'a' ~ t.upper }}", "'upper' is a method of a text"),
        ("{{ [t.upper] }}", "'upper' is a method of a text"),
        ("{{ t.upper | string }}", "'upper' is a method of a text"),
        ("{{ '{0.upper}'.format(t) }}", "'upper' is a method of a text"),
        ("{{ tags.index }}", "'index' is a method of a list"),
        ("{{ [bare.nope] }}", "the object has no attribute 'nope'"),
        ("{{ range }}", "has no text of its own"),
        ("{{ 'a' ~ range }}", "has no text of its own"),
        ("{{ joiner() }}", "has no text of its own"),
        ("{% macro m() %}{% endmacro %}{{ m }}", "'m' has no text of its own; call it"),
        ("{{ tags | map('upper') }}", "a series of values has no text of its own; add `| list`"),
        ("{{ 'a' ~ (tags | reverse) }}", "a series of values has no text of its own"),
    ],
)
def test_what_has_no_text_is_refused(text: str, words: str) -> None:
    """A method that is printed, or a missing item, is an error with the row and the remedy."""
    with pytest.raises(
        SourceError, match=r"^prompt: the template fails on (row 3|every row)"
    ) as at:
        rendered(text)
    assert words in str(at.value)


@pytest.mark.parametrize("text", ["t.upper", "bare.items", "bare['keys']", "not t.upper"])
def test_a_condition_on_a_method_is_refused(text: str) -> None:
    """It would be true for every row."""
    with pytest.raises(SourceError, match=r"^where: the expression fails on row 3 \(id=2\): "):
        RowCondition(text, list(ROW)).holds(variables(ROW), where)


def test_a_comparison_with_a_date_says_how_to_write_it() -> None:
    """`where: day >= '2026-01-31'` is what anybody tries first."""
    day = {"day": date(2026, 2, 1)}
    with pytest.raises(SourceError, match="'day'") as caught:
        RowCondition("day >= '2026-01-31'", ["day"]).holds(variables(day), where)
    told = str(caught.value).split("`")[1]
    assert RowCondition(told, ["day"]).holds(variables(day), where)
    assert not RowCondition(told, ["day"]).holds(variables({"day": None}), where)


def test_a_comparison_with_null_names_the_column() -> None:
    """`where: n > 3` says which column is null in the row, and what to write."""
    with pytest.raises(
        SourceError, match=r"null here: 'n'. Ask for it first, with `is not none`\.$"
    ):
        RowCondition("n > 3", ["n", "m"]).holds(variables({"n": None, "m": 1}), where)


def test_a_condition_sees_none_itself() -> None:
    """Which rows a condition keeps has not changed: in `where`, a null is no empty text."""
    row = variables({"n": None})
    assert RowCondition("n != ''", ["n"]).holds(row, where)
    assert RowCondition("n is none and n | default('x', true) == 'x'", ["n"]).holds(row, where)
    assert RowCondition("n ~ '' == 'None'", ["n"]).holds(row, where)
