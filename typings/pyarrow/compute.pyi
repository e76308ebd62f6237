from typing import Any, overload

from . import Array, ChunkedArray

class Expression:
    def __ne__(self, other: object) -> Expression: ...  # type: ignore[override]
    def __eq__(self, other: object) -> Expression: ...  # type: ignore[override]

def field(name: str) -> Expression: ...
@overload
def is_valid(values: ChunkedArray) -> ChunkedArray: ...
@overload
def is_valid(values: Array) -> Array: ...
def __getattr__(name: str) -> Any: ...
