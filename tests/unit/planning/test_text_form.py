"""Texts are found in JSON without parsing it only if it has just the form that is looked for."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from batchata_tasks.planning.job_list import stored_form, stored_json
from batchata_tasks.planning.text_form import spelled
from batchata_tasks.spec.job import Job
from tests.support.jobs import CLAUDE

TEXTS = ["ünï\n", '"', '\\","role":"user"},{"content":"', '"}],"model":"', '\\"', "\ufffd\x00"]
PART: Any = [{"type": "text", "text": "a"}]
TERMS = stored_json(Job("", CLAUDE, params={"a": "%b\xff"}), None).decode()


def stored(*turns: tuple[str, Any], **fields: Any) -> bytes:
    """Return the JSON of a job with the terms above, which has these turns."""
    messages = [{"role": role, "content": content} for role, content in turns] or None
    return stored_json(Job("", CLAUDE, messages, params={"a": "%b\xff"}, **fields), None)


@pytest.mark.parametrize("text", TEXTS)
def test_the_texts_of_a_form_are_found(text: str) -> None:
    """Whatever they are; and the form with these texts is the same JSON again."""
    form, job = stored_form(TERMS, ("system", "user"), is_prompt=False), ("system", text)
    json = stored(job, ("user", text * 2))
    assert form.texts_of(json) == [spelled(text), spelled(text * 2)]
    assert form.with_texts([spelled(text), spelled(text * 2)]) == json
    prompt = stored_form(TERMS, ("user",), is_prompt=True)
    assert prompt.texts_of(stored(prompt=text)) == [spelled(text)]
    assert [orjson.loads(stored(prompt=text))["prompt"]] == [text]


@pytest.mark.parametrize(
    "json",
    [
        stored(("system", "a"), ("user", "b")),
        stored(("assistant", "a"), ("user", "b")),
        stored(("user", "a"), ("user", "b")),
        stored(("user", PART)),
        stored(("user", "a"), ("user", PART)),
        stored(prompt="a"),
        stored(("user", "a"), max_tokens=7),
        stored(("user", "a"), temperature=0.5),
        stored(("user", "a")) + b" ",
    ],
)
def test_no_text_is_found_in_another_form(json: bytes) -> None:
    """A part of a job that the form does not know would be taken for a text, or be lost."""
    assert stored_form(TERMS, ("user",), is_prompt=False).texts_of(stored(("user", "a"))) == [b"a"]
    assert stored_form(TERMS, ("user",), is_prompt=False).texts_of(json) is None


def test_roles_belong_to_the_form() -> None:
    """Turns of other roles are another form, also if those that are looked for come later."""
    form = stored_form(TERMS, ("system", "user"), is_prompt=False)
    assert form.texts_of(stored(("assistant", "a"), ("system", "b"), ("user", "c"))) is None
    assert form.texts_of(stored(("system", "a"), ("system", "b"), ("user", "c"))) is None
    assert form.texts_of(stored(("user", "c"))) is None
