"""What an answer is worth to its row: which part of it is read, and whether a model takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from batchata_tasks.citations.evidence import lacking
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from batchata_tasks.schema.response import ResponseSchema
    from batchata_tasks.types.answer import Answer

T = TypeVar("T")
Read = Callable[[str], tuple[T | None, str]]
"""Reads an answer's text; returns its value, or None and what is wrong with it."""


def with_answer(answer: Answer, read: Read[T] | None) -> Answer:
    """Return an answer with the text that a response model takes.

    Models say a word or two before the JSON that was asked for, in a part of its own.
    """
    if read is None or answer.text is None or answer.last is None:
        return answer
    if read(answer.text)[0] is not None or read(answer.last)[0] is None:
        return answer
    return answer._replace(text=answer.last)


def judge(answer: Answer, read: Read[T] | None) -> tuple[Outcome, str | None, T | None]:
    """Return how an answer ended, its error and its value, read by a response model's `read`."""
    if answer.outcome is not Outcome.SUCCEEDED:
        return answer.outcome, answer.error, None
    if answer.text is None or answer.blank:
        return Outcome.INVALID, describe(ErrorCode.RESPONSE, "the answer is empty"), None
    if read is None:
        return Outcome.SUCCEEDED, None, None
    value, problem = read(answer.text)
    if value is None:
        return Outcome.INVALID, describe(ErrorCode.RESPONSE, problem), None
    return Outcome.SUCCEEDED, None, value


def lacks_evidence(
    response: ResponseSchema | None, text: str, citations: Iterable[Mapping[str, Any]]
) -> str | None:
    """Return which values of an answer lack the evidence that its model asks for, in a sentence.

    The answer is one that the model takes otherwise; `citations` are its own.
    """
    if response is None or response.min_grade is None:
        return None
    fields, _ = response.read(text)
    return None if fields is None else lacking(fields, citations, response.min_grade)
