"""Requests are built many at once: each is what it would be by itself, byte for byte."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchata_tasks.common.errors import SourceError
from batchata_tasks.common.settings import Settings
from batchata_tasks.planning.body_form import BodyForm
from batchata_tasks.planning.row_block import RowBlock
from batchata_tasks.planning.templates import RowTemplate, variables
from batchata_tasks.planning.text_form import spelled
from batchata_tasks.planning.values import shown
from batchata_tasks.providers.anthropic.adapter import AnthropicAdapter
from batchata_tasks.providers.openai.chat import OpenAIAdapter
from batchata_tasks.providers.openai.responses import OpenAIResponsesAdapter
from batchata_tasks.reports.plan import preview
from batchata_tasks.schema.response import ResponseSchema
from batchata_tasks.spec.loading import parse_spec
from batchata_tasks.types.request import Message, Request
from tests.support.by_day import examples

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.providers import Adapter

ADAPTERS = {
    "anthropic": (AnthropicAdapter, "claude-haiku-5-5"),
    "chat": (OpenAIAdapter, "gpt-6-luna"),
    "responses": (OpenAIResponsesAdapter, "gpt-6-luna"),
}
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
ROLES: list[list[Any]] = [
    ["user"],
    ["system", "user"],
    ["system", "system", "user"],
    ["system", "user", "assistant", "user"],
]
TEXTS = st.text(min_size=1).filter(lambda text: bool(text.strip()))


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set keys, which adapters ask for."""
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "sk-none")


@pytest.mark.sampled
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_body_from_its_form_is_the_providers_own(name: str) -> None:
    """The form of a body with a row's texts is what the adapter makes of the row."""
    kind, model = ADAPTERS[name]
    provider = kind()
    schema = ResponseSchema.from_json_schema(SCHEMA, "response_schema")

    @given(st.sampled_from(ROLES), st.data(), st.booleans(), st.booleans())
    @settings(deadline=None, max_examples=examples(60), derandomize=True)
    def check(roles: list[Any], data: st.DataObject, structured: bool, cache: bool) -> None:
        def request(texts: tuple[str, ...]) -> Request:
            messages = tuple(Message(role, text) for role, text in zip(roles, texts, strict=True))
            params = {"temperature": 0.5, "metadata": {"user_id": "batchata-turn-7"}}
            return Request(model, messages, 64, params, schema if structured else None, cache)

        form = BodyForm.of(provider, request(tuple("%s" for _ in roles)))
        assert form is not None
        texts = tuple(data.draw(TEXTS) for _ in roles)
        assert form.with_texts(list(map(spelled, texts))) == orjson.dumps(
            provider.body(request(texts))
        )

    check()


def test_a_body_of_ones_own_is_built_one_by_one() -> None:
    """An adapter that overrides `body` may look at the texts, so its bodies have no form."""

    class Shouting(AnthropicAdapter):
        def body(self, request: Request) -> dict[str, Any]:
            return {**super().body(request), "metadata": {"user_id": request.messages[0].text}}

    provider: Adapter = Shouting()
    request = Request("claude-haiku-5-5", (Message("user", "t"),), 64)
    assert BodyForm.of(provider, request) is None
    assert BodyForm.of(AnthropicAdapter(), request) is not None


@pytest.mark.parametrize(
    "text", ["{{ '\\ud800' }} {{ text }}", "{{ text | upper }}{{ '\\ud800' }}"]
)
def test_a_template_that_makes_half_of_a_pair_is_refused(tmp_path: Path, text: str) -> None:
    """The row is named in one sentence, whichever way its body is made."""
    source = tmp_path / "t.csv"
    source.write_text("id,text\n1,t\n")
    spec = {
        "name": "n",
        "source": str(source),
        "key": "id",
        "model": "claude-haiku-5-5",
        "prompt": text,
        "output": str(tmp_path / "out"),
    }
    rule = r"^prompt: row 1 \(id='1'\) renders to a text with half of a surrogate pair"
    with pytest.raises(SourceError, match=rule):
        preview(parse_spec(spec), Settings())


VALUES: list[Any] = [
    *("plain", "", " ", "100 % {{ a }}", None, True, 7, 2**62, 1.0, 1e300, float("nan")),
    *(Decimal("1.50"), date(2026, 11, 22), datetime(2026, 11, 22, 9, 30, tzinfo=UTC), b"\0x"),
    *(["1", None, "x"], {"b": [None], "a": datetime(2026, 1, 1)}),  # noqa: DTZ001
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize(
    "text", ["{{ a }}", "100 % of {{ a }}, {{ b }}; {{a}}\n", "\n{{ b }}%s{{ a }}\n\n"]
)
def test_a_plain_template_prints_what_jinja_prints(value: Any, text: str) -> None:
    """A template of texts and names of columns alone needs no Jinja, and prints the same."""
    template = RowTemplate("prompt", text, ["a", "b"])
    rows = RowBlock(pa.RecordBatch.from_pydict({"a": [value], "b": ["t"]}), [1], ["b"])
    plain = template.render_plain(rows, [0])
    assert plain is not None
    assert list(plain) == [template.render(variables(shown(rows.row(0), ["a", "b"])), str)]


@pytest.mark.parametrize(
    "text",
    ["{{ a | upper }}", "{{ a.x }}", "{% if a %}x{% endif %}", "{{ a ~ b }}", "{{ 'x' }}{{a}}"],
)
def test_other_templates_are_left_to_jinja(text: str) -> None:
    """Filters, attributes, statements and expressions are Jinja's."""
    template = RowTemplate("prompt", text, ["a", "b"])
    rows = RowBlock(pa.RecordBatch.from_pydict({"a": ["t"], "b": ["t"]}), [1], ["b"])
    assert template.render_plain(rows, [0]) is None
