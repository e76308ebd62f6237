"""One request to a model, as it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchata_tasks.types.document import Document


class OutputSchema(Protocol):
    """The parts of a response model that a request needs."""

    @property
    def wire(self) -> dict[str, Any]:
        """The JSON Schema that goes over the wire, as all providers take it."""
        ...

    @property
    def name(self) -> str:
        """The name of the response model."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: a text, or separate parts, each a text or a document."""

    role: Literal["system", "user", "assistant"]
    content: str | tuple[str | Document, ...]

    @property
    def text(self) -> str:
        """The whole text of the turn."""
        if isinstance(self.content, str):
            return self.content
        return "\n\n".join(part for part in self.content if isinstance(part, str))

    def wire(
        self, kind: str = "text", attached: Callable[[Document], dict[str, Any]] | None = None
    ) -> str | list[dict[str, Any]]:
        """Return the content as requests hold it.

        `kind` is the endpoint's name for a part of text. `attached` makes the part of a document;
        an adapter that takes documents (`Adapter.document_bytes`) has to give it.
        """
        if isinstance(self.content, str):
            return self.content
        parts = list[dict[str, Any]]()
        for part in self.content:
            if isinstance(part, str):
                parts.append({"type": kind, "text": part})
            elif attached is not None:
                parts.append(attached(part))
            else:
                message = "an adapter that takes documents must give `attached`, their form."
                raise TypeError(message)
        return parts


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model; its provider-side name, the custom_id, is given when it is sent."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: OutputSchema | None = None
    cache: bool = False  # mark the system prompt for the provider's cache, which requests share
