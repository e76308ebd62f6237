"""A number is no date and no time, whatever its library makes of it."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, PastDatetime, RootModel

from batchata_tasks.schema.response import ResponseSchema
from tests.support.by_day import examples


class Visit(BaseModel):
    """A nested model."""

    day: date | None = None
    hours: list[time] = []


class Seen(BaseModel):
    """Dates and times, wherever they may stand."""

    when: datetime
    past: PastDatetime | None = None
    visits: list[Visit] = []


class Alone(RootModel[Seen]):
    """A model around another one."""


SCHEMA = {
    "type": "object",
    "properties": {
        "when": {"type": "string", "format": "date-time"},
        "past": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "visits": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "day": {"type": ["string", "null"], "format": "date"},
                    "hours": {
                        "type": "array",
                        "items": {"type": "string", "format": "time"},
                    },
                },
            },
        },
    },
    "required": ["when"],
}
FORMS = {
    "class": ResponseSchema.from_model(Seen, "x"),
    "root": ResponseSchema.from_model(Alone, "x"),
    "schema": ResponseSchema.from_json_schema(SCHEMA, "x"),
}
NOON = "2024-05-01T12:00:00Z"
NUMBERS = ["2024", "20240101", "1714508400.5", "-5", "+5", "0", 2024, 1714508400.5, 0, True]
BAD: list[tuple[dict[str, Any], str]] = [
    *(({"when": number}, "when: ") for number in NUMBERS),
    ({"when": NOON, "past": "2024"}, "past: "),
    ({"when": NOON, "visits": [{"day": "0"}]}, "visits.0.day: "),
    ({"when": NOON, "visits": [{"day": None}, {"day": 86400}]}, "visits.1.day: "),
    ({"when": NOON, "visits": [{"hours": ["10:30", 36000]}]}, "visits.0.hours.1: "),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("answer", "field"), BAD)
def test_a_number_in_place_of_a_moment_is_invalid(
    form: str, answer: dict[str, Any], field: str
) -> None:
    """The year "2024" is no second of 1970: the field is named, and nothing lands."""
    some: list[dict[str, Any]] = answer.get("visits", [])
    visits: list[Any] = [{"day": None, "hours": [], **visit} for visit in some]
    full: dict[str, Any] = {"past": None, **answer, "visits": visits}
    fields, error = FORMS[form].parse(json.dumps(full))
    assert fields is None
    assert error.removeprefix("root.").startswith(field)
    assert "\n" not in error
    assert FORMS[form].read(json.dumps(full)) == (None, error)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (NOON, datetime(2024, 5, 1, 12, tzinfo=UTC)),
        ("2024-05-01T14:00:00.000+02:00", datetime(2024, 5, 1, 12, tzinfo=UTC)),
        ("2024-05-01 12:00", datetime(2024, 5, 1, 12, tzinfo=UTC)),
        ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)),
    ],
)
def test_moments_in_iso_8601_land_as_before(form: str, text: str, moment: datetime) -> None:
    """With a zone or without, with seconds or without, and a day alone."""
    answer = {
        "when": text,
        "past": None,
        "visits": [{"day": "2024-05-01", "hours": ["10:30", "10:30:01"]}],
    }
    fields, error = FORMS[form].parse(json.dumps(answer))
    assert error == ""
    assert fields is not None
    assert fields["when"] == moment
    assert fields["visits"] == [{"day": date(2024, 5, 1), "hours": [time(10, 30), time(10, 30, 1)]}]


def test_numbers_in_other_fields_stay_what_they_are() -> None:
    """A text "2024" is a fine text, and 2024 a fine number, also beside dates."""
    properties = {
        "label": {"type": "string"},
        "year": {"type": "integer"},
        "when": {"type": "string", "format": "date"},
    }
    schema = ResponseSchema.from_json_schema(
        {"type": "object", "properties": properties, "required": list(properties)}, "x"
    )
    answer = {"label": "2024", "year": 2024, "when": "2024-05-01"}
    assert schema.parse(json.dumps(answer))[0] == {**answer, "when": date(2024, 5, 1)}


@given(
    st.text("0123456789+-.:eETZ _", max_size=24)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes().map(str)
)
@settings(deadline=None, max_examples=examples(500), derandomize=True)
def test_what_lands_as_a_moment_looks_like_one(text: str) -> None:
    """Whatever text is accepted begins with a year, a month and a day."""
    fields, _ = FORMS["class"].parse(json.dumps({"when": text}))
    assert fields is None or re.match(r"\d{4}-\d{2}-\d{2}", text)
