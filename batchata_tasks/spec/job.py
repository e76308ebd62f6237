"""Job: one request to a model, as Python code describes it; JobResult: what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict, not_json
from batchata_tasks.common.text import is_unicode
from batchata_tasks.providers import provider_name
from batchata_tasks.sources.documents import read
from batchata_tasks.types.destination import Destination
from batchata_tasks.types.request import Job as Request
from batchata_tasks.types.request import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.document import Document

MAX_TOKENS = 1024  # the cap on an answer where a Job names none; always sent
_ROLES = ("system", "user", "assistant")
_LONGEST_ID = 500
_MOST_TOKENS = 100_000_000  # no model answers with so many
_NO_HALVES = "that is not empty, and has no halves of surrogate pairs"


@dataclass(frozen=True, slots=True)
class Job:
    """One request to a model. It is given as a `prompt`, or as `messages`.

    Args:
        id: names the job among the others of its batch.
        model: the provider's model id.
        messages: turns such as `{"role": "user", "content": "…"}`; roles are system, user and
            assistant, content is a text or a list of parts `{"type": "text", "text": "…"}`.
        file: a document to attach to the last user turn: a PDF, a picture (PNG, JPEG, GIF, WebP) or a text in UTF-8.
        prompt: a single user turn.
        temperature: sampling temperature, where the model takes one.
        max_tokens: cap on the tokens of the answer.
        response_model: Pydantic class, or JSON Schema, that the answer has to satisfy.
        enable_citations: have the answer say what of the document it rests on (Anthropic; without a response model).
        provider: "anthropic", "openai" or one that was registered; by default it follows from the model.
        endpoint: "chat", or "responses" at OpenAI.
        params: further parameters, passed on to the provider.
    """

    id: str
    model: str
    messages: Sequence[Mapping[str, Any]] | None = None
    file: Path | None = None
    prompt: str | None = None
    temperature: float | None = None
    max_tokens: int = MAX_TOKENS
    response_model: type[BaseModel] | dict[str, Any] | None = None
    enable_citations: bool = False
    provider: str | None = None
    endpoint: Literal["chat", "responses"] = "chat"
    params: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if isinstance(self.messages, tuple):  # as JSON has it
            object.__setattr__(self, "messages", list(self.messages))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a response model travels as its JSON Schema."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        model = self.response_model
        if isinstance(model, type):
            found["response_model"] = model.model_json_schema(by_alias=False)
        return found | {"file": None if self.file is None else str(self.file)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """Return the job that `to_dict` gave; nothing is imported, so its response model is JSON Schema.

        Raises:
            SpecError: a field is missing or unknown.
        """
        known = [one.name for one in fields(cls)]
        for name in data:
            if name not in known:
                message = f"job: there is no field {name!r}; it has: {', '.join(known)}."
                raise SpecError(message)
        for name in ("id", "model"):
            if not isinstance(data.get(name), str):
                message = f"job: {name} is missing; it is a text."
                raise SpecError(message)
        job = cls(**data)
        return replace(job, file=Path(job.file)) if job.file is not None else job

    def destination(self) -> Destination:
        """Return where it goes.

        Raises:
            SpecError: the model belongs to no known provider.
        """
        return Destination(provider_name(self.model, self.provider), self.model, self.endpoint)

    def request(self, schema: ResponseSchema | None, document: Document | None = None) -> Request:
        """Return what is sent, with the document that the file holds."""
        params = (
            self.params
            if self.temperature is None
            else {**self.params, "temperature": self.temperature}
        )
        turns = self.turns()
        if document is not None:
            last, parts = turns[-1], turns[-1].content
            turns = (
                *turns[:-1],
                Message(last.role, (document, *((parts,) if isinstance(parts, str) else parts))),
            )
        return Request(self.model, turns, self.max_tokens, params, schema)

    def document(self) -> Document | None:
        """Read the file.

        Raises:
            SpecError: it is no document that can be sent.
        """
        return None if self.file is None else read(self.file, cited=self.enable_citations)

    def turns(self) -> tuple[Message, ...]:
        """Return the turns to send, without the document.

        Raises:
            SpecError: one of them is wrong; it is named by its place, from 0.
        """
        if self.messages is None:
            return (Message("user", self.prompt or ""),)
        return tuple(_turn(self, place, message) for place, message in enumerate(self.messages))

    def check(self) -> None:
        """Check all that can be told without the provider's rules.

        Raises:
            SpecError: naming the job, the field and the remedy.
        """
        if wrong := self._wrong():
            message = f"job {self.id!r:.80}: {wrong}"
            raise SpecError(message)
        turns = self.turns()
        if not turns or turns[-1].role != "user":
            message = f"job {self.id!r:.80}: messages must end with a turn of role user."
            raise SpecError(message)

    def _wrong(self) -> str | None:  # noqa: PLR0911 - one line per field reads best as a table
        if not is_unicode(self.model) or not self.model:
            return (
                f"model: {self.model!r:.80} is no name of a model; write the provider's id of it."
            )
        if not is_unicode(self.id) or not self.id or len(self.id) > _LONGEST_ID:
            return f"id: write a text of 1 to {_LONGEST_ID} characters."
        named = (
            isinstance(self.file, Path)
            and is_unicode(str(self.file))
            and "\0" not in str(self.file)
        )
        if self.file is not None and not named:
            return f"file: {self.file!r:.80} is no path that can be told; write a Path of Unicode, or rename the file."
        if self.enable_citations and self.file is None:
            return (
                "enable_citations: there is nothing to cite; give the job a file, or leave it out."
            )
        if (self.prompt is None) == (self.messages is None):
            return "give exactly one of prompt and messages."
        if self.prompt is not None and not _is_text(self.prompt):
            return f"prompt: write a text {_NO_HALVES}."
        if (
            isinstance(self.max_tokens, bool)
            or not isinstance(self.max_tokens, int)  # pyright: ignore[reportUnnecessaryIsInstance]
            or not 1 <= self.max_tokens <= _MOST_TOKENS
        ):
            return f"max_tokens: {self.max_tokens!r:.80} is no number of tokens; write one from 1 to {_MOST_TOKENS:,}."
        number = isinstance(self.temperature, int | float) and not isinstance(
            self.temperature, bool
        )
        if self.temperature is not None and not (number and 0 <= self.temperature <= 2):  # noqa: PLR2004 - both providers' range ends there
            return f"temperature: {self.temperature!r:.80} is out of range; write a number from 0 to 2."
        return self._not_plain()

    def _not_plain(self) -> str | None:
        if not isinstance(self.params, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            return f"params: {self.params!r:.80} is none; write a dict."
        wrong = not_json(self.params)
        return (
            None
            if wrong is None
            else f"params: {wrong} is no JSON; write names with texts, numbers, lists."
        )


def _is_text(value: object) -> bool:
    return is_unicode(value) and bool(str(value).strip())


def _turn(job: Job, place: int, message: object) -> Message:
    turn = as_dict(message)
    role, content = turn.get("role"), turn.get("content")
    wrong = None
    if turn.keys() != {"role", "content"}:
        wrong = "a turn is a mapping with role and content, and nothing else"
    elif role not in _ROLES:
        wrong = f"role {role!r:.40} is none of system, user and assistant"
    elif not _is_text(content) and not (isinstance(content, list) and content):
        wrong = f"its content is none; write a text {_NO_HALVES}, or parts"
    parts = cast("list[object]", content) if isinstance(content, list) else []
    for at, part in enumerate(parts):
        found = as_dict(part)
        if (
            found.keys() != {"type", "text"}
            or found["type"] != "text"
            or not _is_text(found["text"])
        ):
            wrong = (
                wrong
                or f"content.{at} is no part of text such as {{'type': 'text', 'text': '…'}}, the kind that this version can send"
            )
    if wrong is not None:
        text = f"job {job.id!r:.80}: messages.{place}: {wrong}."
        raise SpecError(text)
    texts = tuple(str(as_dict(part)["text"]) for part in parts)
    return Message(cast("Any", role), texts or cast("str", content))
