"""How a CSV file is written: the key `csv` of a spec."""

from __future__ import annotations

import codecs
from types import MappingProxyType
from typing import Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DELIMITERS = MappingProxyType({".csv": ",", ".tsv": "\t", ".tab": "\t"})
"""The delimiters of files, by the endings of their names."""


class CsvFormat(BaseModel):
    """How a CSV file is written, where it is not the usual way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delimiter: str | None = Field(
        default=None,
        description=(
            "The character between cells, such as `;`; default: a comma, in .tsv and .tab files a "
            "tab."
        ),
        json_schema_extra={"minLength": 1, "maxLength": 1},
    )
    quote: str | None = Field(
        default='"',
        description="The character around cells; null: quotes are part of the text.",
        json_schema_extra={"minLength": 1, "maxLength": 1},
    )
    encoding: str = Field(default="utf-8", description="Such as cp1252, latin-1 or utf-16.")
    header: bool | list[str] = Field(
        default=True,
        description=(
            "Whether the first row has the names; otherwise they are given here as a list, or are "
            "column1, column2 and so on (false)."
        ),
    )

    @field_validator("delimiter", "quote")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or not value.isascii() or value in "\r\n\0"):
            message = "give one ASCII character, and no line end."
            raise ValueError(message)
        return value

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            # Arrow has buffers decoded, which the code of some names (punycode) cannot
            text = codecs.lookup(value).decode(pa.py_buffer(b""))[0]
        except (LookupError, ValueError, TypeError, AttributeError):
            text = None
        if not isinstance(text, str):
            message = f"there is no encoding {value!r:.40}; give one such as cp1252 or utf-16."
            raise ValueError(message)  # noqa: TRY004 - pydantic turns this into the spec's error
        return value

    def delimiter_in(self, ending: str) -> str:
        """Return the delimiter of a file whose name has this ending."""
        return self.delimiter or DELIMITERS.get(ending, ",")

    @model_validator(mode="after")
    def _they_differ(self) -> Self:
        if self.delimiter is not None and self.delimiter == self.quote:
            message = "`delimiter` and `quote` are the same character; change one."
            raise ValueError(message)
        names = self.header if isinstance(self.header, list) else []
        if self.header == [] or len(set(names)) < len(names) or not all(names):
            message = "`header` is a list of names, each once and none empty; fix it."
            raise ValueError(message)
        return self
