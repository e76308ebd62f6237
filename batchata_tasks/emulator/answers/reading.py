"""What a model reads in documents: the fields whose names stand there as labels, and their lines.

`Grand total: 29.16` says the field `grand_total`, and `Gesamtbetrag: 29,16 EUR` one whose
description has that word. What no line says is drawn, as without documents: models make values up,
too.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from batchata_tasks.emulator.answers.pdf import page_count, page_text
from batchata_tasks.emulator.answers.schemas import as_object
from batchata_tasks.emulator.answers.tokens import blocks_of

if TYPE_CHECKING:
    from batchata_tasks.emulator.answers.schemas import JSON

_URL = re.compile(r"data:application/pdf;base64,(.*)", re.DOTALL)
_TITLED = re.compile(r"[^\n]+\.\w{1,5}:\n\n(.*)", re.DOTALL)  # a text document, under its name
_LABELLED = re.compile(r"\s*([^\d:]{1,60}?)\s*:\s*(.*\S)\s*")
_NUMBER = re.compile(r"-?\d[\d.,]*")
_DECIMAL = "format: decimal"  # in the description of a text
_DECIMAL_COMMA = re.compile(r"-?(\d{1,3}(\.\d{3})+|\d+)(,\d{1,2})?")  # 1.234,50
_DATES = ("%Y-%m-%d", "%d %B %Y", "%B %d, %Y", "%d.%m.%Y")
_QUOTING = {"fields", "quotes"}  # of an answer that says beside its fields where they stand
_YES_OR_NO = {"yes": True, "no": False}


class _Line(NamedTuple):
    value: str
    text: str
    page: int


def as_read(value: JSON, schema: JSON, messages: Any) -> JSON:
    """Return a drawn answer with what the documents of a request say of its fields."""
    lines = _lines_of(messages)
    if not lines:
        return value
    properties = as_object(schema.get("properties"))
    if properties.keys() != _QUOTING:
        return cast("JSON", _Reader(lines).node(value, schema, "", ""))
    reader = _Reader(lines)
    fields = reader.node(value["fields"], properties["fields"], "", "")
    return {"fields": fields, "quotes": reader.quotes}


class _Reader:
    def __init__(self, lines: dict[str, _Line]) -> None:
        self._lines = lines
        self.quotes: list[JSON] = []

    def node(self, value: Any, schema: Any, path: str, name: str, above: str = "") -> Any:
        """Return a value, as the document says it if it does."""
        kind = _one_kind(as_object(schema))
        properties = as_object(kind.get("properties"))
        if isinstance(value, dict) and properties:
            held: JSON = cast("JSON", value)
            return {
                key: self.node(
                    held[key], properties.get(key), f"{path}.{key}" if path else key, key, name
                )
                for key in held
            }
        if isinstance(value, dict | list):
            return value  # pyright: ignore[reportUnknownVariableType] - any JSON
        named = self._lines.get(_words(name)) or self._lines.get(_words(above))
        line = named or self._described(str(as_object(schema).get("description", "")))
        read = None if line is None else _converted(line.value, kind)
        if line is None or read is None:
            return value
        self.quotes.append({"field": path, "quote": line.text, "page": line.page})
        return read

    def _described(self, text: str) -> _Line | None:
        """Return the line whose label stands in the description of a field."""
        words = f" {_words(text)} "
        return next((line for name, line in self._lines.items() if f" {name} " in words), None)


def _one_kind(schema: JSON) -> JSON:
    """Return the schema of what is not null."""
    options = [as_object(one) for one in schema.get("anyOf", [])]
    return next((one for one in options if one.get("type") != "null"), schema)


def _converted(text: str, schema: JSON) -> Any:  # noqa: PLR0911 - one line per type
    if "enum" in schema:
        return next((one for one in schema["enum"] if str(one).lower() == text.lower()), None)
    is_decimal = schema.get("format") == "decimal" or _DECIMAL in str(schema.get("description"))
    if is_decimal or schema.get("type") in ("number", "integer"):
        found = _NUMBER.search(text)
        if found is None:
            return None
        digits = _with_point(found[0].rstrip(".,"))
        if is_decimal:
            return digits
        number = float(digits)
        return int(number) if schema["type"] == "integer" else number
    if schema.get("type") == "boolean":
        return _YES_OR_NO.get(text.lower())
    if schema.get("type") != "string":
        return None
    if schema.get("format") == "date":
        return _date(text)
    return text


def _with_point(text: str) -> str:
    """Return a number, of whichever convention, as programs write it."""
    comma = _DECIMAL_COMMA.fullmatch(text)
    if comma is not None and (comma[3] or comma[2]):
        return text.replace(".", "").replace(",", ".")
    return text.replace(",", "")


def _date(text: str) -> str | None:
    for form in _DATES:
        try:
            return datetime.strptime(text.strip(), form).date().isoformat()  # noqa: DTZ007 - a day
        except ValueError:
            continue
    return None


def _lines_of(messages: Any) -> dict[str, _Line]:
    """Return the labelled lines of a request's documents, the first of each label."""
    lines = dict[str, _Line]()
    for block in blocks_of(messages):
        for number, page in enumerate(_pages_of(block), 1):
            for line in page.splitlines():
                if (found := _LABELLED.fullmatch(line)) is not None:
                    lines.setdefault(_words(found[1]), _Line(found[2], line.strip(), number))
    return lines


def _pages_of(block: JSON) -> list[str]:
    """Return the text of each page of a document."""
    source, file = as_object(block.get("source")), as_object(block.get("file"))
    if block.get("type") == "document" and source.get("type") == "text":
        return [str(source.get("data", ""))]
    if (titled := _TITLED.fullmatch(str(block.get("text", "")))) is not None:
        return [titled[1]]
    encoded = source.get("data") if block.get("type") == "document" else None
    if (url := _URL.match(str(file.get("file_data") or block.get("file_data") or ""))) is not None:
        encoded = url[1]
    if not isinstance(encoded, str):
        return []
    return [page_text(encoded, page) for page in range(1, page_count(encoded) + 1)]


def _words(name: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))
