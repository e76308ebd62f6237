"""Jinja2 templates over a row, with a cap on the size of their output, and `where` expressions."""

from __future__ import annotations

from datetime import date
from itertools import repeat
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, meta, nodes

from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.planning.hints import nearest, quoted_column
from batchata_tasks.planning.sandbox import ANALYSIS, CONDITIONS, TEMPLATES, printable
from batchata_tasks.planning.values import shown, shown_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from batchata_tasks.planning.row_block import RowBlock

MAX_TEMPLATE_CHARS = 1_000_000
MAX_RENDERED_CHARS = 64_000_000  # above every provider's limit for one request
WHOLE_ROW = "row"  # `row["any column"]` reaches names that are not Python identifiers


class WholeRow:
    """`row` in a template: its columns as items and attributes, and nothing else (no methods)."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None


def variables(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template's variables: the columns, and `row` unless a column has that name."""
    return {WHOLE_ROW: WholeRow(row), **row}


class RowTemplate:
    """A compiled template of one field of the spec.

    `columns` are the source columns that it reads, `printed` those of them that it prints as they
    are, without a filter.
    """

    def __init__(self, field: str, text: str, columns: Iterable[str]) -> None:
        if len(text) > MAX_TEMPLATE_CHARS:
            size = f"{field}: the template has {len(text):,} characters"
            message = f"{size}; {MAX_TEMPLATE_CHARS:,} is the limit."
            raise SpecError(message)
        self.field = field
        self._constant: str | None = None
        columns = list(columns)
        try:
            tree = ANALYSIS.parse(text)
            self._template = TEMPLATES.from_string(text)
            # a chain of mappings otherwise, which Jinja copies for every row
            self._template.globals = dict(self._template.globals)
        except (TemplateError, RecursionError) as error:
            number = getattr(error, "lineno", None)
            line = f" in line {number}" if number else ""
            message = f"{field}: the template is not valid Jinja2{line}: {error}"
            if remedy := quoted_column(text, columns):
                message += f"; {remedy}."
            raise SpecError(message) from error
        self.columns = _columns_read(field, text, tree, columns)
        self.printed = [name for name in self.columns if name in _printed(tree)]
        # a template without columns (most system prompts) says the same for every row
        self._constant = None if self.columns else self.render({}, lambda: "every row")
        self._form = _form_of(tree, self.columns)

    def render(self, row: Mapping[str, Any], where: Callable[[], str]) -> str:
        """Render over `row`; `where` names the row in the sentence of an error.

        Raises:
            SourceError: the template fails on this row, or makes more than 64 million characters.
        """
        if self._constant is not None:
            return self._constant
        try:
            text = self._rendered(row, where)
        except (
            TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            RecursionError,
            MemoryError,
        ) as error:
            reason = str(error) or type(error).__name__
            message = f"{self.field}: the template fails on {where()}: {reason}"
            raise SourceError(message) from error
        return text

    def render_plain(self, rows: RowBlock, places: Sequence[int]) -> Iterator[str] | None:
        """Render over many rows; None if the template has more than texts and names of columns.

        Raises:
            SourceError: it makes more than 64 million characters.
        """
        if self._constant is not None:
            return repeat(self._constant, len(places))
        return None if self._form is None else self._formatted(rows, places, *self._form)

    def _formatted(
        self, rows: RowBlock, places: Sequence[int], form: str, names: list[str]
    ) -> Iterator[str]:
        columns = [[_text_of(values[i]) for i in places] for values in map(rows.values, names)]
        for place, texts in zip(places, zip(*columns, strict=True), strict=True):
            text = form % texts
            if len(text) > MAX_RENDERED_CHARS:
                raise self._too_long(rows.namer(place))
            yield text

    def _too_long(self, where: Callable[[], str]) -> SourceError:
        limit = f"{MAX_RENDERED_CHARS:,} characters, the limit"
        return SourceError(f"{self.field}: {where()} renders to more than {limit}.")

    def _rendered(self, row: Mapping[str, Any], where: Callable[[], str]) -> str:
        pieces: list[str] = []
        size = 0
        for piece in self._template.generate(row):
            size += len(piece)
            if size > MAX_RENDERED_CHARS:
                raise self._too_long(where)
            pieces.append(piece)
        return "".join(pieces)


def _form_of(tree: nodes.Template, columns: list[str]) -> tuple[str, list[str]] | None:
    """Return a template as a form with a %s for each name of a column, if that is all it has."""
    form, names = "", list[str]()
    for output in tree.body:
        for node in output.nodes if isinstance(output, nodes.Output) else [output]:
            if isinstance(node, nodes.TemplateData):
                form += node.data.replace("%", "%%")
            elif isinstance(node, nodes.Name) and node.name in columns:
                form += "%s"
                names.append(node.name)
            else:
                return None
    return form, names


def _text_of(value: object) -> str:
    """Return what a template prints for a value of a column."""
    return value if type(value) is str else str(printable(shown_value(value)))


class RowCondition:
    """The spec's `where`: an expression over a row, true for the rows to keep.

    `table` names, for people, what the columns are of, and `field` where the condition stands.
    """

    def __init__(
        self, text: str, columns: Iterable[str], table: str = "source", field: str = "where"
    ) -> None:
        self._field = field
        columns, code = list(columns), "{{ " + text + " }}"
        try:
            tree = ANALYSIS.parse(code)
            self._expression = CONDITIONS.compile_expression(text, undefined_to_none=False)
        except (TemplateError, RecursionError) as error:
            remedy = quoted_column(code, columns) or (
                "write a condition over the columns, without braces, such as "
                "month >= '2026-01' and name != ''"
            )
            message = f"{field}: not a valid Jinja2 expression: {error}; {remedy}."
            raise SpecError(message) from error
        self.columns = _columns_read(field, code, tree, columns, table)

    def kept(self, rows: RowBlock) -> list[int]:
        """Return the places of the rows for which it holds.

        Raises:
            SourceError: the expression fails on a row.
        """
        # which rows a condition keeps must not change: here a null is Jinja's own none
        return [
            i
            for i in range(len(rows))
            if self.holds(variables(shown(rows.row(i), self.columns, null=None)), rows.namer(i))
        ]

    def holds(self, row: Mapping[str, Any], where: Callable[[], str]) -> bool:
        """Whether the row is to be kept.

        Raises:
            SourceError: the expression fails on this row.
        """
        try:
            return bool(self._expression(row))
        except (
            TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            message = f"{self._field}: the expression fails on {where()}: {error}"
            if isinstance(error, TypeError):
                message += self._of_types(row)
            raise SourceError(message) from error

    def _of_types(self, row: Mapping[str, Any]) -> str:
        """Return what may be wrong with the types of a row's values; "" if nothing is known."""
        nulls = [repr(name) for name in self.columns if row.get(name) is None]
        if nulls:
            return f"; null here: {', '.join(nulls)}. Ask for it first, with `is not none`."
        dates = [repr(name) for name in self.columns if isinstance(row.get(name), date)]
        if dates:
            return (
                f"; a date here: {', '.join(dates)}. Compare it as a text, such as "
                "`day is not none and day | string >= '2026-01-31'`."
            )
        return ""


def _columns_read(
    field: str, text: str, tree: nodes.Template, columns: list[str], table: str = "source"
) -> list[str]:
    """Return the columns that a template reads, in the source's order; refuse unknown ones."""
    names = meta.find_undeclared_variables(tree) - (set(TEMPLATES.globals) - set(columns))
    if WHOLE_ROW in names and WHOLE_ROW not in columns:
        names.discard(WHOLE_ROW)
        names |= _named_items(field, tree)
    for name in sorted(names - set(columns)):
        what = "condition" if field.endswith("where") else "template"
        unknown = f"{field}: the {what} uses {name!r}, and the {table} has no such column"
        # `{{ customer-name }}` is a subtraction to Jinja
        remedy = quoted_column(text, [column for column in columns if name in column])
        remedy = f"; {remedy}" if remedy else nearest(name, columns)
        message = f"{unknown}{remedy}."
        raise SpecError(message)
    return [column for column in columns if column in names]


def _printed(tree: nodes.Template) -> set[str]:
    """Return the names that a template prints as they are: `{{ name }}` or `{{ row["name"] }}`."""
    printed = set[str]()
    for output in tree.find_all(nodes.Output):
        for node in output.nodes:
            if isinstance(node, nodes.Name):
                printed.add(node.name)
            elif isinstance(node, nodes.Getitem | nodes.Getattr) and _is_row(node.node):
                name = node.attr if isinstance(node, nodes.Getattr) else _constant(node.arg)
                printed.add(str(name))
    return printed


def _is_row(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == WHOLE_ROW


def _constant(node: nodes.Node) -> object:
    return node.value if isinstance(node, nodes.Const) else None


def _named_items(field: str, tree: nodes.Template) -> set[str]:
    """Return the names used as `row["name"]` or `row.name`; refuse any other use of `row`."""
    named: set[str] = set()
    plain = sum(1 for n in tree.find_all(nodes.Name) if n.name == WHOLE_ROW)
    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        if not _is_row(node.node):
            continue
        if isinstance(node, nodes.Getattr):
            named.add(node.attr)
        elif isinstance(node.arg, nodes.Const):
            named.add(str(node.arg.value))
        else:
            continue
        plain -= 1
    if plain or len(named) == 0:
        use = f"{field}: `row` reaches single columns, as in row['any name']"
        message = f"{use}; name the columns that it uses."
        raise SpecError(message)
    return named
