from typing import Any

from . import ChunkedArray

class Expression:
    def __ne__(self, other: object) -> Expression: ...  # type: ignore[override]
    def __eq__(self, other: object) -> Expression: ...  # type: ignore[override]

def field(name: str) -> Expression: ...
def is_valid(values: ChunkedArray) -> ChunkedArray: ...
def __getattr__(name: str) -> Any: ...
