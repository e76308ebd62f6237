"""Values: how a Job ends, what an error's first word says, what is frozen."""

from __future__ import annotations

from typing import Any

import pytest

from batchata_tasks.common.json import as_dict
from batchata_tasks.types.answer import Answer, Usage
from batchata_tasks.types.outcome import ErrorCode, Outcome, describe, is_final
from batchata_tasks.types.request import Message, Request


def test_the_outcomes_are_the_documented_ones() -> None:
    """A Job ends in one of eight ways; their names are stored in datasets."""
    assert [str(outcome) for outcome in Outcome] == [
        "succeeded",
        "invalid",
        "truncated",
        "refused",
        "errored",
        "expired",
        "canceled",
        "missing",
    ]


@pytest.mark.parametrize("outcome", Outcome)
def test_only_requests_that_cannot_have_run_are_no_attempt(outcome: Outcome) -> None:
    """Expired, cancelled and missing requests are not counted as attempts; all others are."""
    assert outcome.never_ran is (outcome in {Outcome.EXPIRED, Outcome.CANCELED})


@pytest.mark.parametrize("code", ErrorCode)
def test_only_hopeless_errors_are_final(code: ErrorCode) -> None:
    """A request or document that is wrong, and a refusal, end the same way again."""
    hopeless = {ErrorCode.REQUEST, ErrorCode.TOO_LARGE, ErrorCode.DOCUMENT, ErrorCode.REFUSED}
    assert code.final is (code in hopeless)


@pytest.mark.parametrize("code", ErrorCode)
def test_a_stored_error_remembers_whether_it_is_final(code: ErrorCode) -> None:
    """The next run reads from a row's `_error` alone whether to send it again."""
    assert is_final(describe(code, "message: with a colon")) is code.final


@pytest.mark.parametrize(
    "error",
    [None, "", "request", "refused", "nonsense", "nonsense: request", "REQUEST: x", " request: x"],
)
def test_any_text_can_be_asked(error: str | None) -> None:
    """Texts of other programs are not final, and no crash."""
    assert is_final(error) is (error in {"request", "refused"})


def test_a_description_is_bounded() -> None:
    """A provider's endless message does not land in the dataset whole."""
    assert describe(ErrorCode.PROVIDER, "x" * 9999) == "provider: " + "x" * 1990
    assert describe(ErrorCode.PROVIDER, "abc", limit=11) == "provider: a"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (Message("user", "x"), "content"),
        (Request("m", (), 1), "model"),
        (Usage(), "input_tokens"),
        (Answer("id", Outcome.SUCCEEDED), "text"),
    ],
)
def test_values_are_frozen(value: object, field: str) -> None:
    """Values that travel between steps are frozen."""
    with pytest.raises(AttributeError):
        setattr(value, field, "other")


def test_jobs_share_no_parameters() -> None:
    """The default of `params` is made anew for each Job."""
    assert Request("m", (), 1).params is not Request("m", (), 1).params


@pytest.mark.parametrize(
    ("value", "expected"), [({"a": 1}, {"a": 1}), (None, {}), ([1], {}), ("x", {}), (0, {})]
)
def test_anything_can_be_read_as_an_object(value: Any, expected: dict[str, Any]) -> None:
    """Null, lists and texts in place of a provider's object read as an empty one."""
    assert as_dict(value) == expected
