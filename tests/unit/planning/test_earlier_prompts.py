"""A prompt is found again under the name that a column had before."""

from __future__ import annotations

import pytest

from batchata_tasks.planning.earlier_prompts import earlier_parts
from batchata_tasks.planning.fingerprint import prompt_part
from batchata_tasks.spec.parts import Turn


def found(before: str, after: str, old: str = "text", **others: str) -> bool:
    """Whether one of the earlier prompts is the one before; `body` was called `old`."""
    names = {old: "body", **others}
    turns = [Turn(role="user", content=after)]
    return prompt_part([("user", before)]) in earlier_parts(turns, names)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{{ text }}", "{{ body }}"),
        ("{{text|upper}} and {{- text -}} !", "{{body|upper}} and {{- body -}} !"),
        ("{% if text is not none %}text{% endif %}", "{% if body is not none %}text{% endif %}"),
        ('{{ row["text"] }} {{ row.text }}', '{{ row["body"] }} {{ row.body }}'),
        ("{{ x.body }} {{ text }}", "{{ x.body }} {{ body }}"),
        ("{{ text ~ ' body ' }}", "{{ body ~ ' body ' }}"),
        ("{# text #}{{ text }}", "{# body #}{{ body }}"),
        ("{# body #}{{ text }}", "{# body #}{{ body }}"),
        ("{{ texts }} {{ text_2 }} {{ text }}", "{{ texts }} {{ text_2 }} {{ body }}"),
    ],
)
def test_each_way_to_name_a_column_leads_back(before: str, after: str) -> None:
    """Texts around it, attributes and strings of the same spelling stay as they are."""
    assert found(before, after)


@pytest.mark.parametrize("before", ['{{ row["a name"] }}', "{{ row['a name'] }}"])
@pytest.mark.parametrize("after", ['{{ row["body"] }}', "{{ row['body'] }}", "{{ body }}"])
def test_a_name_that_is_no_identifier_leads_back(before: str, after: str) -> None:
    """However it is written now."""
    assert found(before, after, old="a name")


@pytest.mark.parametrize(
    ("before", "after", "others"),
    [
        ("{{ body }} {{ text }}", "{{ text }} {{ body }}", {"body": "text"}),
        ("{{ text }} {{ row.note }}", "{{ body }} {{ row.body_2 }}", {"note": "body_2"}),
        ("{{ text }} {{ row['note'] }}", "{{ body }} {{ remark }}", {"note": "remark"}),
    ],
)
def test_several_columns_lead_back_together(
    before: str, after: str, others: dict[str, str]
) -> None:
    """Each in its own way, also if two exchanged their names."""
    assert found(before, after, **others)
    assert not found(before, after)


def test_a_prompt_that_changed_otherwise_is_not_found() -> None:
    """Its words are other ones, or the name changed outside of the template's code."""
    assert not found("{{ text }}", "Please: {{ body }}")
    assert not found("text: {{ text }}", "body: {{ body }}")
    assert not found("{{ note }}", "{{ body }}")
