# What this project uses of python-calamine, which is an extra.
from collections.abc import Iterator
from typing import Any

class CalamineError(Exception): ...

class CalamineSheet:
    start: tuple[int, int] | None
    def iter_rows(self) -> Iterator[list[Any]]: ...

class CalamineWorkbook:
    sheet_names: list[str]
    @classmethod
    def from_filelike(cls, filelike: Any) -> CalamineWorkbook: ...
    def get_sheet_by_name(self, name: str) -> CalamineSheet: ...
