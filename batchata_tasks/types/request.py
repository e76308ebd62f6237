"""One request to a model, as it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.types.document import Document


class OutputSchema(Protocol):
    """What a request needs of a response model: its name, and the JSON Schema that goes over the wire."""

    @property
    def wire(self) -> dict[str, Any]:
        """The schema, as both providers take it."""
        ...

    @property
    def name(self) -> str:
        """What it is called."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that is sent: a text, or parts that stay apart, each a text or a document."""

    role: Literal["system", "user", "assistant"]
    content: str | tuple[str | Document, ...]

    @property
    def text(self) -> str:
        """The whole text of the turn."""
        return (
            self.content
            if isinstance(self.content, str)
            else "\n\n".join(part for part in self.content if isinstance(part, str))
        )

    def wire(
        self, kind: str = "text", attached: Callable[[Document], dict[str, Any]] | None = None
    ) -> str | list[dict[str, Any]]:
        """Return the content as requests hold it.

        `kind` is what the endpoint calls a part of text; `attached` makes the part of a document, where a
        provider takes some (`Adapter.document_bytes`).
        """
        if isinstance(self.content, str):
            return self.content
        parts = list[dict[str, Any]]()
        for part in self.content:
            if isinstance(part, str):
                parts.append({"type": kind, "text": part})
            elif attached is None:
                message = (
                    "an adapter that takes documents tells how requests hold them: give `attached`."
                )
                raise TypeError(message)
            else:
                parts.append(attached(part))
        return parts


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model; its provider-side name, the custom_id, is given when it is sent."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: OutputSchema | None = None
    cache: bool = (
        False  # mark the system prompt, so that other requests find it in the provider's cache
    )
