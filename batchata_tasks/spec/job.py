"""Job: one request to a model, as Python code describes it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast, get_args

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.json import as_dict, not_json
from batchata_tasks.common.text import is_unicode
from batchata_tasks.providers import provider_name
from batchata_tasks.schema.quotes import MinGrade
from batchata_tasks.sources.documents import read
from batchata_tasks.types.destination import Destination
from batchata_tasks.types.request import Message, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import UnionType

    from pydantic import BaseModel

    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.document import Document

_DEFAULT_MAX_TOKENS = 1024  # always sent
_Role = Literal["system", "user", "assistant"]
Roles = tuple[_Role, ...]
"""The roles of turns."""
_ROLES: tuple[_Role, ...] = get_args(_Role)
_GRADES: tuple[MinGrade, ...] = get_args(MinGrade)
_TURN = {"role", "content"}
_LONGEST_ID = 500
_MOST_TOKENS = 100_000_000  # no model answers with so many
_MOST_TEMPERATURE = 2  # of both providers
_TEXT_RULE = "that is not empty, and has no halves of surrogate pairs"
_PART_RULE = (
    "is no part of text such as {'type': 'text', 'text': '…'}, the kind that this version can send"
)


@dataclass(frozen=True, slots=True)
class Job:
    """One request to a model. It is given as a `prompt`, or as `messages`.

    Args:
        id: names the job among the others of its batch.
        model: the provider's model id.
        messages: turns such as `{"role": "user", "content": "…"}`; roles are system, user and
            assistant, content is a text or a list of parts `{"type": "text", "text": "…"}`.
        file: a document to attach to the last user turn: a PDF, a picture (PNG, JPEG, GIF, WebP),
            a text, or a Word, Excel or PowerPoint document.
        prompt: a single user turn.
        temperature: sampling temperature, if the model takes one.
        max_tokens: cap on the tokens of the answer.
        response_model: Pydantic class, or JSON Schema, that the answer has to satisfy.
        enable_citations: ask the model which passages of the document its answer rests on: with a
            response model for each field, without one at Anthropic alone.
        min_grade: the grade of evidence, "high", "medium" or "low", that each value of the answer
            needs; without it, the answer is invalid.
        provider: "anthropic", "openai" or one that was registered; by default it follows from the
            model.
        endpoint: "chat", or "responses" at OpenAI.
        params: further parameters, passed on to the provider.
    """

    id: str
    model: str
    messages: Sequence[Mapping[str, Any]] | None = None
    file: Path | None = None
    prompt: str | None = None
    temperature: float | None = None
    max_tokens: int = _DEFAULT_MAX_TOKENS
    response_model: type[BaseModel] | dict[str, Any] | None = None
    enable_citations: bool = False
    min_grade: MinGrade | None = None
    provider: str | None = None
    endpoint: Literal["chat", "responses"] = "chat"
    params: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if isinstance(self.messages, tuple):  # as JSON has it
            object.__setattr__(self, "messages", list(self.messages))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; a response model travels as its JSON Schema."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        model = self.response_model
        if isinstance(model, type):
            values["response_model"] = model.model_json_schema(by_alias=False)
        return values | {"file": None if self.file is None else str(self.file)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """Return a job from what `to_dict` gave.

        Nothing is imported, so its response model is JSON Schema.

        Raises:
            SpecError: a field is missing or unknown.
        """
        names = [one.name for one in fields(cls)]
        for name in data:
            if name not in names:
                message = f"job: there is no field {name!r}; it has: {', '.join(names)}."
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
        """Return the request, with the content of the file as its document."""
        turns = self.turns()
        if document is not None:
            *before, last = turns
            parts = (last.content,) if isinstance(last.content, str) else last.content
            turns = (*before, Message(last.role, (document.beside(schema), *parts)))
        return Request(self.model, turns, self.max_tokens, params_of(self), schema)

    def document(self) -> Document | None:
        """Read the file.

        Raises:
            SpecError: it is no document that can be sent.
        """
        return None if self.file is None else read(self.file, cited=self.enable_citations)

    def turns(self) -> tuple[Message, ...]:
        """Return the turns to send, without the document.

        Raises:
            SpecError: one of them is invalid; it is named by its place, from 0.
        """
        if self.messages is None:
            return (Message("user", self.prompt or ""),)
        if (texts := turn_texts(self.messages, None)) is not None:
            return tuple(map(Message, *texts))
        return tuple(_turn(self, place, message) for place, message in enumerate(self.messages))

    def check(self) -> tuple[Message, ...]:
        """Check all that needs no rules of the provider; return the turns.

        Raises:
            SpecError: naming the job, the field and the remedy.
        """
        if problem := self._problem():
            message = f"job {self.id!r:.80}: {problem}"
            raise SpecError(message)
        turns = self.turns()
        if not turns or turns[-1].role != "user":
            message = f"job {self.id!r:.80}: messages must end with a turn of role user."
            raise SpecError(message)
        return turns

    def _problem(self) -> str | None:  # noqa: PLR0911 - one rule per field reads best as a table
        if not is_unicode(self.model) or not self.model:
            return (
                f"model: {self.model!r:.80} is no name of a model; write the provider's id of it."
            )
        if not is_job_id(self.id):
            return f"id: write a text of 1 to {_LONGEST_ID} characters."
        if self.file is not None and not _is_path(self.file):
            rule = "is no valid path; write a Path of Unicode, or rename the file."
            return f"file: {self.file!r:.80} {rule}"
        if self.enable_citations and self.file is None:
            return (
                "enable_citations: there is nothing to cite; give the job a file, or leave it out."
            )
        if problem := self._grade_problem():
            return problem
        if (self.prompt is None) == (self.messages is None):
            return "give exactly one of prompt and messages."
        if self.prompt is not None and not _is_text(self.prompt):
            return f"prompt: write a text {_TEXT_RULE}."
        if not _is_number(self.max_tokens, int) or not 1 <= self.max_tokens <= _MOST_TOKENS:
            rule = f"is no number of tokens; write one from 1 to {_MOST_TOKENS:,}."
            return f"max_tokens: {self.max_tokens!r:.80} {rule}"
        temperature = self.temperature
        if temperature is not None and not (
            _is_number(temperature, int | float) and 0 <= temperature <= _MOST_TEMPERATURE
        ):
            return f"temperature: {temperature!r:.80} is out of range; write a number from 0 to 2."
        return self._params_problem()

    def _grade_problem(self) -> str | None:
        if self.min_grade is None:
            return None
        if self.min_grade not in _GRADES:
            return f"min_grade: {self.min_grade!r:.80} is no grade; write {', '.join(_GRADES)}."
        lacks = None if self.response_model is not None else "a response_model"
        lacks = lacks if self.enable_citations else "enable_citations=True"
        if lacks is None:
            return None
        return f"min_grade: it is about the evidence of fields; give {lacks} as well, or remove it."

    def _params_problem(self) -> str | None:
        if not isinstance(self.params, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            return f"params: {self.params!r:.80} is no dict; write one."
        if self.params and (value := not_json(self.params)) is not None:
            return f"params: {value} is no JSON; write names with texts, numbers, lists."
        return None


def params_of(job: Job) -> dict[str, Any]:
    """Return the parameters of a job's request, with the temperature if there is one."""
    if job.temperature is None:
        return job.params
    return {**job.params, "temperature": job.temperature}


def turn_texts(messages: object, prompt: object) -> tuple[Roles, tuple[str, ...]] | None:
    """Return the roles and the texts of turns; None if one is invalid, or has separate parts."""
    if messages is None:
        return (("user",), (prompt,)) if isinstance(prompt, str) and _is_text(prompt) else None
    if type(messages) is not list:  # others may be read only once
        return None
    roles: list[_Role] = []  # takes a third of the time of `list[_Role]()`
    texts: list[str] = []
    for turn in cast("list[dict[str, Any]]", messages):
        if type(turn) is not dict or len(turn) != len(_TURN):
            return None
        role, text = turn.get("role"), turn.get("content")
        if role not in _ROLES or not _is_text(text):
            return None
        roles.append(role)
        texts.append(text)
    return tuple(roles), tuple(texts)


def is_job_id(value: object) -> bool:
    """Whether this can be the id of a job."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and is_unicode(value)


def _is_path(value: object) -> bool:
    return isinstance(value, Path) and is_unicode(str(value)) and "\0" not in str(value)


def _is_number(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and not value.isspace() and is_unicode(value)


def _turn(job: Job, place: int, given: object) -> Message:
    turn = as_dict(given)
    role, content = turn.get("role"), turn.get("content")
    parts = _parts(content)
    problem = None
    if turn.keys() != _TURN:
        problem = "a turn is a mapping with role and content, and nothing else"
    elif role not in _ROLES:
        problem = f"role {role!r:.40} is none of system, user and assistant"
    elif not _is_text(content) and not parts:
        problem = f"its content is invalid; write a text {_TEXT_RULE}, or parts"
    else:
        odd = next((i for i, part in enumerate(parts) if not _is_text_part(part)), None)
        problem = None if odd is None else f"content.{odd} {_PART_RULE}"
    if problem is not None:
        message = f"job {job.id!r:.80}: messages.{place}: {problem}."
        raise SpecError(message)
    texts = tuple(str(part["text"]) for part in parts)
    return Message(cast("Any", role), texts or cast("str", content))


def _parts(content: object) -> list[dict[str, Any]]:
    """Return the parts of a turn; none if its content is a text, or invalid."""
    if not isinstance(content, list):
        return []
    return [as_dict(part) for part in cast("list[object]", content)]


def _is_text_part(part: dict[str, Any]) -> bool:
    return part.keys() == {"type", "text"} and part["type"] == "text" and _is_text(part["text"])
