"""The forms that a spec's source may have: a text that names files, or one of these mappings."""

from __future__ import annotations

import re
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from batchata_tasks.common.text import printable
from batchata_tasks.common.validation import describe_keys

_SHOWN = 60  # characters of a query in a line for people


class SqlSource(BaseModel):
    """A query over files, for DuckDB."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sql: str = Field(
        min_length=1, description="One SELECT, in DuckDB's SQL, over files that it names as texts."
    )

    def __str__(self) -> str:
        return _short(self.sql)


class DatabaseSource(BaseModel):
    """A query of a database, whose URL is in the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url_env: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that has the database's SQLAlchemy URL.",
    )
    query: str = Field(min_length=1, description="One SELECT, in the database's own SQL.")

    def __str__(self) -> str:
        return f"{self.url_env}: {_short(self.query)}"


class SheetSource(BaseModel):
    """A sheet of a workbook."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(min_length=1, description="Path, pattern or URL of the workbook.")
    sheet: str = Field(min_length=1, description="Name of the sheet; of a path alone, the first.")

    def __str__(self) -> str:
        return f"{self.file} ({self.sheet})"


class DocumentsSource(BaseModel):
    """A table of documents: one row for each file that a pattern names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    documents: str = Field(
        min_length=1, description="Pattern of local files, such as inbox/**/*.pdf."
    )

    def __str__(self) -> str:
        return self.documents


class FrameSource(BaseModel):
    """A table in memory, which `enrich` gives in Python; a spec's file cannot name one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frame: str = Field(min_length=1, description="What it is, such as pandas; given in Python.")

    def __str__(self) -> str:
        return f"a frame ({self.frame})"


Form = SqlSource | DatabaseSource | SheetSource | DocumentsSource | FrameSource
_FORMS: dict[str, type[Form]] = {
    "sql": SqlSource,
    "url_env": DatabaseSource,
    "query": DatabaseSource,
    "file": SheetSource,
    "sheet": SheetSource,
    "documents": DocumentsSource,
    "frame": FrameSource,
}
_WAYS = (
    "write a path, {sql: SELECT …}, {url_env: NAME, query: SELECT …}, {file: …, sheet: NAME} or "
    "{documents: PATTERN}"
)


def _formed(value: object) -> object:
    """Return a source in its form; what is wrong with it is one sentence, whatever form it has."""
    if isinstance(value, Form):
        return value
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, dict):
        message = f"must not be empty: {_WAYS}" if value == "" else f"{_WAYS} (it is {value!r:.60})"
        raise ValueError(message)  # noqa: TRY004 - pydantic turns this into the spec's error
    keys = cast("dict[str, Any]", value)
    form = next((kind for key, kind in _FORMS.items() if key in keys), None)
    if form is None:
        message = f"{_WAYS} (its keys are {', '.join(map(str, keys)) or 'none'})"
        raise ValueError(message)
    try:
        return form.model_validate(keys)
    except ValidationError as error:
        known = ", ".join(form.model_fields)
        sentence = describe_keys(
            error,
            if_unknown=lambda _key, _value: f"such a source has: {known}.",
            if_missing=lambda _key: "add it.",
        )
        raise ValueError(sentence) from None


TableSource = Annotated[
    # no spec's file can name a frame, so editors do not offer it
    Annotated[str, Field(min_length=1)]
    | SqlSource
    | DatabaseSource
    | SheetSource
    | DocumentsSource
    | SkipJsonSchema[FrameSource],
    BeforeValidator(_formed),
]
"""A spec's source, of any form."""


def _short(query: str) -> str:
    """Return a query in one line, cut to what a person recognizes it by."""
    text = printable(re.sub(r"\s+", " ", query).strip())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
