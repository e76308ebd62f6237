"""`JobResult.is_success`: a method that is as true as its answer if nobody calls it.

In other libraries the same name is a property. `if result.is_success:` reads well, and with a plain
method it would be true of every result, without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import Callable


class Ended(Protocol):
    """A result, as far as it tells success from failure."""

    @property
    def error(self) -> str | None:
        """Why there is no usable answer; None if there is one."""
        ...


class Success:
    """Whether a result has a usable answer; calling it, or asking for its truth, tells."""

    __slots__ = ("_succeeded",)

    def __init__(self, *, succeeded: bool) -> None:
        self._succeeded = succeeded

    def __call__(self) -> bool:
        """Return whether there is a usable answer."""
        return self._succeeded

    def __bool__(self) -> bool:
        return self._succeeded

    def __eq__(self, other: object) -> bool:
        return self._succeeded == bool(other) if isinstance(other, bool | Success) else False

    def __hash__(self) -> int:
        return hash(self._succeeded)

    def __repr__(self) -> str:
        return repr(self._succeeded)


class SuccessOf:
    """The descriptor `JobResult.is_success`."""

    __doc__ = "Whether there is a usable answer; without a call it is as true as that."

    @overload
    def __get__(self, result: None, owner: Any) -> Callable[[Ended], bool]: ...
    @overload
    def __get__(self, result: Ended, owner: Any) -> Success: ...
    def __get__(self, result: Ended | None, owner: Any) -> Success | Callable[[Ended], bool]:
        del owner
        return _succeeded if result is None else Success(succeeded=_succeeded(result))


def _succeeded(result: Ended) -> bool:
    """Whether there is a usable answer."""
    return result.error is None
