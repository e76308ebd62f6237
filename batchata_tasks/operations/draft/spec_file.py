"""The text of a drafted spec: YAML with what was found out about the table as comments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import yaml

from batchata_tasks.common.text import pluralize, printable
from batchata_tasks.sources.files import pattern_base
from batchata_tasks.spec.json_schema import NAME as SCHEMA

if TYPE_CHECKING:
    from batchata_tasks.operations.draft.facts import TableFacts
    from batchata_tasks.operations.draft.keys import ChosenKey

_LISTED = 100  # columns
_WIDE = 100_000  # characters of a line: yaml folds longer ones
COST_LIMIT_USD = 1.0
PILOT_ROWS = 20


@dataclass(frozen=True)
class SpecDraft:
    """What a drafted spec says; `source` and `output` are paths from the folder of the spec.

    `task` is the system prompt and `prompt` the template of the user's turn; `used` are the columns
    in it, of which those in `with_nulls` are null in some of the table's `rows`. `response_model`
    names the class of the answers. `remarks` are about columns, a line each.
    """

    name: str
    source: str | dict[str, Any]
    key: ChosenKey
    model: str
    system: str
    prompt: str
    response_model: str
    output: str
    carried: list[str]
    rows: int
    with_nulls: list[str]
    remarks: list[str]

    def values(self, table: TableFacts) -> dict[str, Any]:
        """Return the keys of the spec, in the order in which they are written."""
        form = table.csv.model_dump(exclude_defaults=True) if table.csv else {}
        key = self.key.names
        values: dict[str, Any] = {
            "spec_version": 1,
            "name": self.name,
            "source": self.source,
            "csv": form or None,
            "types": table.types or None,
            "key": key[0] if len(key) == 1 else key,
            "model": self.model,
            "system": self.system,
            "prompt": self.prompt + "\n",
            "file": "{{ path }}" if table.of_documents else None,
            "document_root": self._document_root(),
            "response_model": self.response_model,
            "max_tokens": 300,
            "on_null": "pass" if self.with_nulls else None,
            "output": self.output,
            "columns": self.carried or None,
            "pilot": {"rows": PILOT_ROWS, "max_invalid_share": 0.2, "once": True},
            "cost_limit_usd": COST_LIMIT_USD,
        }
        return {name: value for name, value in values.items() if value is not None}

    def _document_root(self) -> str | None:
        """Return the folder of documents that lie outside of the spec's own; None if none do."""
        pattern = self.source.get("documents") if isinstance(self.source, dict) else None
        if pattern is None or not (pattern.startswith(("..", "~")) or Path(pattern).is_absolute()):
            return None
        base = pattern_base(pattern)
        return base if base != pattern else str(PurePosixPath(pattern).parent)


def spec_text(draft: SpecDraft, table: TableFacts) -> str:
    """Return the spec as its file has it."""
    comments = _comments(draft, table)
    lines = [f"# yaml-language-server: $schema={SCHEMA}", *_columns(draft, table), ""]
    for name, value in draft.values(table).items():
        if name in ("model", "output", "pilot"):
            lines.append("")
        if name == "prompt" and (block := _block(value)) is not None:
            lines += ["prompt: |   # a Jinja2 template over the row", *block]
            continue
        if name == "source" and not isinstance(draft.source, str):
            lines += ["source:", *_mapping(draft.source)]
            continue
        comment = f"   # {comments[name]}" if name in comments else ""
        lines.append(f"{name}: {as_yaml(value)}{comment}")
    return "\n".join(lines) + "\n"


def _comments(draft: SpecDraft, table: TableFacts) -> dict[str, str]:
    found = f"unique and never null in all {pluralize(draft.rows, 'row')}"
    why = draft.key.why.format(found) if draft.rows else "there are no rows yet"
    doubt = draft.key.doubt(draft.rows)
    nulls = ", ".join(printable(name) for name in draft.with_nulls)
    as_json = " (`null` by tojson)" if "tojson" in draft.prompt else ""
    return {
        "source": "a path from the folder in which you run",
        "csv": "as its first bytes look" if table.csv else "",
        "types": "their cells are of several types, and read as the texts that they show",
        "key": f"{why}; doubtful: {doubt}" if doubt is not None else why,
        "model": "the provider follows from it",
        "file": "the document that goes with each row: its path from that folder",
        "document_root": "the folder that documents have to lie in",
        "response_model": "what an answer looks like: each field becomes a column",
        "max_tokens": "the cap on one answer",
        "on_null": f"{nulls}: null in some rows, and prints nothing then{as_json}",
        "columns": "carried along from the table",
        "pilot": "these rows go first, the rest if they turn out well; once for a prompt and model",
        "cost_limit_usd": "hard, for one run, in US dollars",
    }


def _columns(draft: SpecDraft, table: TableFacts) -> list[str]:
    """Return the comment that lists the table's columns."""
    count = pluralize(len(table.names), "column")
    lines = [f"# The table has {pluralize(draft.rows, 'row')} and {count}:"]
    shown = table.columns[:_LISTED]
    names = [column.label for column in shown]
    widths = [max(map(len, texts)) for texts in (names, [column.type for column in shown])]
    for name, column in zip(names, shown, strict=True):
        example = f"  {column.example}" if column.example else ""
        lines.append(f"#   {name:{widths[0]}}  {column.type:{widths[1]}}{example}".rstrip())
    if more := len(table.columns) - len(shown):
        lines.append(f"#   and {more:,} more")
    lines += [
        f"#   {printable(name)}: its values go into no one type, so that no spec can use it uncast"
        for name in table.unread
    ]
    return lines + [f"# {remark}" for remark in draft.remarks]


def _mapping(values: dict[str, Any]) -> list[str]:
    """Return the lines of a mapping, its texts of several lines as blocks."""
    lines = list[str]()
    for name, value in values.items():
        block = _block(value) if isinstance(value, str) and value.endswith("\n") else None
        if block is None:
            lines.append(f"  {name}: {as_yaml(value)}")
        else:
            lines += [f"  {name}: |", *(f"  {line}".rstrip() for line in block)]
    return lines


def as_yaml(value: object) -> str:
    """Return a value as YAML has it on one line: in quotes if it would be read as another."""
    if isinstance(value, float):
        return f"{value:.2f}"
    dump = partial(cast("Any", yaml).safe_dump, value, default_flow_style=True, width=_WIDE)
    text: str = dump(allow_unicode=True, sort_keys=False).removesuffix("\n...\n").strip()
    # a name with a line break would be folded
    return text if len(text.splitlines()) == 1 else str(dump(default_style='"')).strip()


def _block(text: str) -> list[str] | None:
    """Return a text as the lines of a YAML block; None if a block cannot hold it."""
    lines = [f"  {line}".rstrip() for line in text.splitlines()]
    try:
        read: Any = yaml.safe_load("\n".join(["text: |", *lines, ""]))
    except yaml.YAMLError:
        return None
    return lines if read == {"text": text} else None
