"""Templates see a row and nothing else, and their errors are named before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.planning import templates
from batchata_tasks.planning.templates import (
    MAX_RENDERED_CHARS,
    MAX_TEMPLATE_CHARS,
    RowCondition,
    RowTemplate,
    variables,
)

COLUMNS = ["a", "b", "items", "x y", "rows"]
ROW: dict[str, Any] = {
    "a": "A",
    "b": 2,
    "items": ["p", "q"],
    "x y": "gap",
    "rows": [{"a": "inner"}],
}


def where() -> str:
    return "row 7 (id=1)"


def rendered(text: str, row: dict[str, Any] | None = None) -> str:
    values = ROW if row is None else row
    return RowTemplate("prompt", text, list(values)).render(variables(values), where)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ a }}: {{ b }}", "A: 2"),
        ("{{ row['x y'] }}", "gap"),
        ("{{ row.a }}", "A"),
        ("{% for item in items %}{{ item }},{% endfor %}", "p,q,"),
        ("{% if b > 1 %}many{% else %}one{% endif %}", "many"),
        ("{{ a | lower }} {{ items | join('-') }}", "a p-q"),
        ("{% set c = b + 1 %}{{ c * 2 }}", "6"),
        ("{{ 7 % 4 }} {{ 2.5 * 2 }}", "3 5.0"),
        ("<&> {{ a }}", "<&> A"),
        ("{{ '<b>' }}", "<b>"),
        ("line\n", "line"),
    ],
)
def test_a_row_renders(text: str, expected: str) -> None:
    """Columns, loops, sets, filters and arithmetic work; nothing is escaped for HTML."""
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("no column", []),
        ("{{ b }}{{ a }}", ["a", "b"]),
        ("{{ row['x y'] }}", ["x y"]),
        ("{{ row.b }}", ["b"]),
        ("{{ row['a'] }}{{ b }}", ["a", "b"]),
        ("{% for a in items %}{{ a }}{% endfor %}", ["items"]),
        ("{% for row in rows %}{{ row.a }}{% endfor %}", ["rows"]),
        ("{% set b = 1 %}{{ b }}", []),
        ("{{ a | replace('x', b | string) }}", ["a", "b"]),
        ("{% if a %}{{ b }}{% endif %}", ["a", "b"]),
        ("{% raw %}{{ a }}{% endraw %}", []),
        ("{# {{ a }} #}", []),
        ("{{ range(3) | list }}", []),
        ("{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b) }}", ["b"]),
    ],
)
def test_the_columns_read_are_known(text: str, columns: list[str]) -> None:
    """The fingerprint covers the columns that the template reads, in the source's order."""
    assert RowTemplate("prompt", text, COLUMNS).columns == columns


@pytest.mark.parametrize(
    "text",
    [
        "{{ nope }}",
        "{{ row.nope }}",
        "{{ row['nope'] }}",
        "{% if nope %}{% endif %}",
        "{{ a | join(nope) }}",
    ],
)
def test_an_unknown_column_is_refused_with_those_there_are(text: str) -> None:
    """A misspelt column is an error of the spec that lists the columns."""
    with pytest.raises(SpecError) as caught:
        RowTemplate("prompt", text, COLUMNS)
    assert str(caught.value) == (
        "prompt: the template uses 'nope', and the source has no such column; "
        f"it has: {', '.join(COLUMNS)}."
    )


@pytest.mark.parametrize(
    "text", ["{{ a", "{% for x in %}", "{% endif %}", "{{ a | nope }}", "{% frobnicate %}"]
)
def test_broken_jinja_is_refused(text: str) -> None:
    """What Jinja2 cannot parse is an error of the spec that names the field."""
    with pytest.raises(SpecError, match=r"^system: the template is not valid Jinja2"):
        RowTemplate("system", text, COLUMNS)


def test_the_line_of_a_syntax_error_is_named() -> None:
    """In a long prompt, the line is named."""
    with pytest.raises(SpecError, match="in line 3"):
        RowTemplate("prompt", "one\ntwo\n{{ }}", COLUMNS)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ a.__init__.__globals__ }}",
        "{{ a|attr('__class__') }}",
        "{{ a['__class__'] }}",
        "{{ row.__class__ }}",
        "{{ ''['__cla' ~ 'ss__'] }}",
        "{{ '{0.__class__}'.format(a) }}",
        "{{ items.append('z') }}",
        "{{ items.clear() }}",
        "{{ items.sort() }}",
        "{{ 'x' * 1000 }}",
        "{{ 9 ** 9 }}",
        "{{ '%99s' % a }}",
        "{{ items * 3 }}",
        "{{ range(999999) | list }}",
        "{% include 'x' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
        "{{ self.__init__ }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_the_sandbox_holds(text: str) -> None:
    """Nothing leads out of the row.

    Attribute tricks, files, mutation and inflating operators are refused.
    """
    with pytest.raises((SpecError, SourceError)) as caught:
        rendered(text)
    assert str(caught.value).startswith("prompt: ")


def test_a_template_changes_no_row() -> None:
    """The row that the next turn sees is the row that the source gave."""
    row = {"items": ["p"], "d": {"k": 1}}
    for text in (
        "{{ items.append(1) }}",
        "{{ d.update({'k': 2}) }}",
        "{{ d.pop('k') }}",
        "{{ items.insert(0, 1) }}",
    ):
        with pytest.raises(SourceError):
            rendered(text, row)
    assert row == {"items": ["p"], "d": {"k": 1}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ b.nope }}", "has no attribute 'nope'"),
        ("{{ rows[0].nope }}", "has no attribute 'nope'"),
        ("{{ rows[5].a }}", "has no element 5"),
        ("{{ b / 0 }}", "division by zero"),
        ("{{ a + b }}", "str"),
        ("{{ b | round('x') }}", ""),
        ("{{ b(1) }}", "not callable"),
    ],
)
def test_a_failing_row_is_named(text: str, reason: str) -> None:
    """What fails on one row is one sentence with the field, the row and the reason."""
    with pytest.raises(SourceError) as caught:
        rendered(text)
    assert str(caught.value).startswith("prompt: the template fails on row 7 (id=1): ")
    assert reason in str(caught.value)


def test_an_oversized_template_is_refused() -> None:
    """A template has at most a million characters."""
    assert RowTemplate("prompt", "x" * MAX_TEMPLATE_CHARS, []).columns == []
    with pytest.raises(
        SpecError, match=r"prompt: the template has 1,000,001 characters; 1,000,000 is the limit"
    ):
        RowTemplate("prompt", "x" * (MAX_TEMPLATE_CHARS + 1), [])


def test_a_template_without_columns_is_the_same_for_every_row() -> None:
    """It is rendered once; if it fails, it fails when the spec is read."""
    template = RowTemplate("system", "Be {{ 'brief' }}.", COLUMNS)
    assert {template.render({}, where), template.render(variables(ROW), where)} == {"Be brief."}
    with pytest.raises(
        SourceError, match=r"^system: the template fails on every row: division by zero"
    ):
        RowTemplate("system", "{{ 1 / 0 }}", COLUMNS)


def test_an_oversized_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row renders to at most the cap; one character more is refused, naming the row."""
    assert MAX_RENDERED_CHARS > 0
    monkeypatch.setattr(templates, "MAX_RENDERED_CHARS", 100)
    assert len(rendered("{{ a }}", {"a": "x" * 100})) == 100
    with pytest.raises(
        SourceError, match=r"prompt: row 7 \(id=1\) renders to more than 100 characters, the limit"
    ):
        rendered("{{ a }}", {"a": "x" * 101})


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("b == 2", True),
        ("b > 2", False),
        ("a in ['A', 'B'] and b", True),
        ("row['x y'] == 'gap'", True),
        ("items | length > 5", False),
        ("a is none", False),
        ("a >= '2026-01'", True),
        ("not a", False),
    ],
)
def test_a_condition_keeps_rows(text: str, holds: bool) -> None:
    """`where` is an expression over the row; its truth decides."""
    condition = RowCondition(text, COLUMNS)
    assert condition.holds(variables(ROW), where) is holds


def test_a_condition_knows_its_columns() -> None:
    """`where` reads columns that no template needs; they are read from the source too."""
    assert RowCondition("row['x y'] and b", COLUMNS).columns == ["b", "x y"]


@pytest.mark.parametrize("text", ["b ==", "a }} {{ b", "{% if a %}", "", "for"])
def test_a_broken_condition_is_refused(text: str) -> None:
    """`where` is one expression; anything else is an error of the spec."""
    with pytest.raises(SpecError, match=r"^where: "):
        RowCondition(text, COLUMNS)


def test_a_condition_on_an_unknown_column_is_refused() -> None:
    """A misspelt column in `where` would keep or drop all rows; it is an error instead."""
    with pytest.raises(
        SpecError, match=r"^where: the condition uses 'month', .* it has: a, b, items"
    ):
        RowCondition("month >= '2026'", COLUMNS)


@pytest.mark.parametrize("text", ["b > 'x'", "a.nope == 1", "b.__class__ == 1", "1 / 0"])
def test_a_condition_that_fails_names_the_row(text: str) -> None:
    """A comparison that makes no sense on one row stops the plan with that row's name."""
    with pytest.raises(SourceError, match=r"^where: the expression fails on row 7 \(id=1\): "):
        assert RowCondition(text, COLUMNS).holds(variables(ROW), where) is None


@pytest.mark.parametrize("name", ["range", "dict", "namespace", "cycler", "joiner", "lipsum"])
def test_a_column_named_like_a_global_is_a_column(name: str) -> None:
    """With a column `range` in the source, `{{ range }}` is that column."""
    template = RowTemplate("prompt", "{{ " + name + " }}", [name])
    assert template.columns == [name]
    assert template.render(variables({name: "1-5"}), where) == "1-5"


@pytest.mark.parametrize("name", ["items", "values", "keys", "get", "copy", "pop"])
def test_no_method_of_the_row_gets_into_a_prompt(name: str) -> None:
    """`row.values` is the column of that name or an error, never `<built-in method …>`."""
    try:
        assert rendered("{{ row." + name + " }}", {name: "cell"}) == "cell"
    except SpecError:
        return


def test_a_column_named_row_is_that_column() -> None:
    """A source with a column `row` keeps it; the whole row has no name then."""
    assert rendered("{{ row }}", {"row": "cell", "a": 1}) == "cell"
    assert RowTemplate("prompt", "{{ row }}", ["row", "a"]).columns == ["row"]


@pytest.mark.parametrize(
    "text",
    [
        "{{ row }}",
        "{{ row | tojson }}",
        "{% for name in row %}{{ name }}{% endfor %}",
        "{{ row | length }}",
        "{{ row[a] }}",
        "{{ row['a'] }}{{ row }}",
        "{{ row[a ~ 'b'] }}",
        "{% set r = row %}{{ r.a }}",
        "{{ row | attr('a') }}",
    ],
)
def test_the_whole_row_is_refused(text: str) -> None:
    """`row` may only name single columns, so that the fingerprint knows them.

    Any other use is refused, with the remedy.
    """
    with pytest.raises(
        SpecError,
        match=r"^prompt: `row` reaches single columns, as in row\['any name'\]; name the columns",
    ):
        RowTemplate("prompt", text, ["a", "b"])


@pytest.mark.parametrize(
    "text",
    [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for x in items recursive %}{{ loop(items) }}{% endfor %}",
    ],
)
def test_endless_recursion_is_an_error_of_the_template(text: str) -> None:
    """A template that calls itself without end is one sentence that names the row."""
    with pytest.raises(SourceError, match=r"^prompt: the template fails on (row 7|every row)"):
        rendered(text)


@pytest.mark.parametrize("kind", ["prompt", "where"])
def test_endless_nesting_is_an_error_of_the_template(kind: str) -> None:
    """A template nested beyond what Python parses is refused with its field's name."""
    text = "(" * 20_000 + "1" + ")" * 20_000
    with pytest.raises(SpecError, match=f"^{kind}: "):
        assert (
            RowCondition(text, [])
            if kind == "where"
            else RowTemplate(kind, "{{ " + text + " }}", [])
        )


def test_the_cap_stops_a_template_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that would fill the memory is stopped soon after the cap, not after it has ended."""
    monkeypatch.setattr(templates, "MAX_RENDERED_CHARS", 10_000)
    reached = 0

    class Counted:
        def __str__(self) -> str:
            nonlocal reached
            reached += 1
            return "x" * 100

    with pytest.raises(SourceError):
        rendered("{% for n in range(50_000) %}{{ a }}{% endfor %}", {"a": Counted()})
    assert reached < 10_000
