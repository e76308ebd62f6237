"""The prompt of a draft: what is to be done with a row, and the columns that say what it holds."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, cast

from batchata_tasks.common.arrow_types import is_list
from batchata_tasks.common.errors import InputError
from batchata_tasks.common.json import as_dict
from batchata_tasks.common.json_columns import is_nested
from batchata_tasks.common.text import printable
from batchata_tasks.operations.draft.keys import TAKEN, only_identifies
from batchata_tasks.planning.hints import literal
from batchata_tasks.planning.templates import RowTemplate, variables
from batchata_tasks.planning.values import shown

if TYPE_CHECKING:
    from batchata_tasks.operations.draft.facts import Column, TableFacts

TASK = "Say in one sentence what this record is about, and which category fits it best."
SYSTEM = "You read one record of a table at a time, and answer from what it says alone."
DOCUMENT_TASK = "Say in one sentence what this document is about, and which category fits it best."
DOCUMENT_SYSTEM = "You read one document at a time, and answer from what it says alone."
_MOST = 8  # columns that a prompt shows unasked
_TRIED = 20  # rows on which a column's place in the template is tried
_FIELDS, _NAMED = 2, 30  # examples, and names, that a remark has at most
_BRACES = str.maketrans("{}", "()")  # which a label may not hold: Jinja reads them


def prompt_of(table: TableFacts, key: list[str], task: str) -> tuple[str, list[str]]:
    """Return a prompt, and the columns that it uses, in the table's order.

    A task with `{{ … }}` is a template already; any other is followed by the columns that say most.

    Raises:
        SpecError: the template is not valid, or uses a column that the table lacks.
    """
    if "{{" in task or "{%" in task:
        template = RowTemplate("--prompt", task, table.names)
        return task, template.columns
    if table.of_documents:  # the document says it all
        return task, []
    lines = dict[str, str]()
    for column in _by_content(table, key):
        if len(lines) < _MOST and (reference := _reference(column, table.names)) is not None:
            label = " ".join(printable(column.name).translate(_BRACES).split())
            lines[column.name] = f"{label}: {reference}" if label else reference
    used = [name for name in table.names if name in lines]
    return "\n".join([task, "", *(lines[name] for name in used)]), used


def remarks(table: TableFacts, key: list[str], used: list[str], carried: list[str]) -> list[str]:
    """Return what is to be said of columns of which the draft makes no use, or less than it could.

    `used` are those in the prompt, `carried` those of the dataset, beside the key.
    """
    others = [one for one in table.columns if one.is_named and one.name not in (*key, *carried)]
    shown = [one.label for one in others if one.name in used and one.name not in TAKEN]
    unused = [one.label for one in others if one.name not in used]
    fields = [_field(column, table.names) for column in table.columns if column.is_nested]
    examples = [text for text in fields if text is not None][:_FIELDS]
    about = {
        "In the prompt, and not in the dataset unless `columns` names them": _listed(shown),
        "Neither in the prompt nor in the dataset": _listed(unused),
        "Single fields of objects, in a prompt": "   ".join(examples),
    }
    return [f"{what}: {text}" for what, text in about.items() if text]


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _field(column: Column, names: list[str]) -> str | None:
    """Return what stands in a template for a field of objects, or of lists of them."""
    value = next((one for one in column.values if one), None)
    is_listed = isinstance(value, list)
    one: object = cast("list[object]", value)[0] if is_listed else value
    field = next(iter(as_dict(one)), "")
    if not field.isidentifier():
        return None
    for name in (column.name, f"row[{literal(column.name)}]"):
        text = f"{{{{ {name}.{field} }}}}"
        if is_listed:
            text = f"{{% for one in {name} %}}{{{{ one.{field} }}}} {{% endfor %}}"
        if _works(text, column, names):
            return text
    return None


def _by_content(table: TableFacts, key: list[str]) -> list[Column]:
    """Return the columns that a model can read, those with the most to say first.

    An id is none of them, nor is a column without a name, unless there is nothing else.
    """
    columns = [column for column in table.columns if not column.is_binary]
    named = [one for one in columns if one.is_named] or columns
    telling = [one for one in named if one.name not in key or not only_identifies(one)]
    return sorted(telling or named, key=lambda one: (not one.example, -one.length))


def _reference(column: Column, names: list[str]) -> str | None:
    """Return what stands for a column in a template; None if nothing can."""
    quoted = f"row[{literal(column.name)}]"
    is_flat = is_list(column.kind) and not is_nested(column.kind.value_type)
    # an object would print as Python writes it
    way = ' | join(", ")' if is_flat else " | tojson" if column.is_nested else ""
    tried = [f"{{{{ {name}{way} }}}}" for name in (column.name, quoted)]
    return next((text for text in tried if _works(text, column, names)), None)


def _works(text: str, column: Column, names: list[str]) -> bool:
    """Whether a template shows this column, and no other, of the first rows."""
    try:
        template = RowTemplate("prompt", text, names)
        for value in islice(column.values, _TRIED):
            row = variables(shown({column.name: value}, [column.name]))
            template.render(row, lambda: "a row")
    except InputError:
        return False
    return template.columns == [column.name]
