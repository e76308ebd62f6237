"""`plan --sample` prints requests as a run then sends them; options plan what a run would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchata_tasks.common.money import exact, pico_from_usd
from batchata_tasks.pipeline.start import refresh_mark
from batchata_tasks.planning.summary import Options
from batchata_tasks.providers import provider_type
from batchata_tasks.reports.requests import RequestParts
from tests.support.operations import preview
from tests.support.table import APIS, SCHEMA, Table

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

ROWS = 6


@pytest.fixture(params=APIS)
def table(request: Any, emulator: Emulator, tmp_path: Path) -> Table:
    return Table(tmp_path, emulator, request.param, rows=ROWS)


def sampled(table: Table, rows: int, options: Options | None = None, **changes: Any) -> Any:
    return preview(table.spec(**changes), options, sample=rows).to_json()["sample"]


def test_what_is_shown_is_what_is_sent(table: Table) -> None:
    """Turns, parameters and schema of each sampled request are those that go over the wire."""
    found = sampled(table, ROWS)
    table.run()
    sent = list(table.bodies().values())
    assert len(found["requests"]) == ROWS
    for row, one in zip(table.values, found["requests"], strict=True):
        (body,) = [body for body in sent if row["text"] == table.turns(body)[-1]["content"]]
        assert one["key"] == {"id": row["id"]}
        assert one["turns"] == [
            {"role": "system", "text": "Label it."},
            {"role": "user", "text": row["text"]},
        ]
        assert one["other_parameters"] == {}
        assert found["parameters"].items() <= {**body, **found["parameters"]}.items()
        assert found["parameters"]["model"] == body["model"]
        assert 200 in found["parameters"].values()
    assert found["schema"]["properties"].keys() == SCHEMA["properties"].keys()
    assert table.ledger()["requests_accepted"] == ROWS


def test_the_samples_add_up_to_the_plan(table: Table) -> None:
    """The bounds of all requests are that of the plan; none is expected above its bound."""
    plan = preview(table.spec(), sample=100)
    requests = plan.to_json()["sample"]["requests"]
    bounds = [pico_from_usd(one["upper_bound_usd"]) for one in requests]
    assert exact(sum(bounds)) == exact(plan.summary.bound)
    for one in requests:
        assert pico_from_usd(one["expected_usd"]) <= pico_from_usd(one["upper_bound_usd"])
        assert one["input_tokens"] <= one["most_input_tokens"]
        assert one["output_tokens"] <= one["most_output_tokens"] == 200


def test_a_sample_is_of_what_would_be_sent(table: Table) -> None:
    """It has the first rows that need work; if none does, it says so."""
    table.run(limit=4)
    assert [one["key"]["id"] for one in sampled(table, 1)["requests"]] == ["k4"]
    table.run()
    plan = preview(table.spec(), sample=3)
    assert plan.sample is not None
    assert plan.sample.text() == "No request to show: nothing would be sent."


def test_the_text_has_the_schema_once(table: Table) -> None:
    """For people: each turn, what each request may cost, and what all have in common once."""
    plan = preview(table.spec(), sample=2)
    assert plan.sample is not None
    text = plan.sample.text()
    assert text.count("text of row") == 2
    assert text.count('"words"') == 2  # as a property and as required
    assert f"Request 2 of {ROWS}, of the row with id='k1':" in text
    assert "Sent with each of the 6 requests:" in text


def test_another_attempt_is_shown_as_it_is_sent(table: Table) -> None:
    """A row that was cut off goes out with a larger cap, and the sample shows it in that row."""
    table.emulator.control.faults(kind="request_truncated", contains="row 2")
    table.run(max_attempts=1)
    (one,) = sampled(table, 5, Options(retry_failed=True), max_attempts=1)["requests"]
    assert one["key"] == {"id": "k2"}
    assert one["most_output_tokens"] > 200


def test_options_plan_what_a_run_with_them_does(table: Table) -> None:
    """Rows that landed count again with `refresh`, those that failed for good if asked for."""
    table.emulator.control.faults(kind="request_refusal", contains="row 4")
    table.run()
    plain = preview(table.spec()).summary
    assert (plain.requests, plain.exhausted) == (0, 1)
    assert preview(table.spec(), Options(retry_failed=True)).summary.reasons == {"failed": 1}
    refreshed = preview(table.spec(), Options(refresh_mark(refresh=True))).summary
    assert refreshed.reasons == {"refresh": ROWS}


def test_what_stopped_for_its_rows_would_be_sent_again(table: Table) -> None:
    """A run that no answer was usable of stopped; `--retry-failed` plans what goes on."""
    table.values = [{"id": f"k{i}", "text": f"text {i}", "note": ""} for i in range(25)]
    table.write()
    table.emulator.control.faults(kind="request_refusal")
    assert table.run().result == "no_usable_answer"
    assert preview(table.spec()).stopped == "no_usable_answer"
    assert preview(table.spec(), Options(retry_failed=True)).stopped is None


def test_a_provider_without_a_schema_path_keeps_its_body_whole() -> None:
    """What leads to no schema stays among the parameters."""
    parts = RequestParts.of(
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},'
        b'{"type":"image"}]}],"text":{"format":{"schema":{"a":1}},"verbosity":"low"}}',
        provider_type("openai"),
    )
    assert (parts.schema, parts.turns) == (None, (("user", "a\n\n[image]"),))
    responses = RequestParts.of(
        b'{"input":[],"text":{"format":{"schema":{"a":1}},"verbosity":"low"}}',
        provider_type("openai", "responses"),
    )
    assert (responses.schema, responses.parameters) == ({"a": 1}, {"text": {"verbosity": "low"}})
