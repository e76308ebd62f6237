"""Fields with citations: which passage of its document says each field of an answer."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from batchata_tasks import Batch, JobResult
from batchata_tasks.cli.commands import app
from batchata_tasks.common.settings import Settings
from batchata_tasks.operations.compact import compact
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.reports.one_row import one_row
from batchata_tasks.spec.loading import parse_spec
from tests.support.jobs import CLAUDE, GPT, bodies, sent
from tests.support.pdfs import pdf

if TYPE_CHECKING:
    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.spec.enrichment import EnrichmentSpec

APIS: dict[str, dict[str, str]] = {
    "anthropic": {"model": CLAUDE},
    "openai": {"model": GPT},
    "responses": {"model": GPT, "endpoint": "responses"},
}
PAGES = ("Invoice no.: 2026-0417", "Ship to: Lisbon", "Grand total: 29.16")
TEXT = "Supplier: Weber\n" + "\n".join(PAGES)


class Place(BaseModel):  # noqa: D101
    city: str


class Invoice(BaseModel):  # noqa: D101
    invoice_no: str
    ship_to: Place
    grand_total: float
    remark: str


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "invoice.pdf").write_bytes(pdf(*PAGES))
    (tmp_path / "invoice.txt").write_text(TEXT)
    return tmp_path


def batch(api: str = "anthropic", file: str = "invoice.pdf", **fields: Any) -> Batch:
    made = Batch("out").set_default_params(max_tokens=900, **cast("Any", APIS[api]))
    keys = {"response_model": Invoice, "enable_citations": True, **fields}
    return made.add_job(id="a", file=file, prompt="Read the invoice.", **keys)


def passages(result: JobResult) -> dict[str, tuple[Any, ...]]:
    """Return page, quote, grade and truth of each field's first citation."""
    names = ("page_start", "cited_text", "grade", "verified")
    return {
        field: tuple(cast("Any", citations[0])[name] for name in names)
        for field, citations in result.citation_mappings.items()
    }


@pytest.mark.parametrize("api", APIS)
@pytest.mark.usefixtures("folder")
def test_each_field_has_its_passages(emulator: Emulator, api: str) -> None:
    """Every field that the document says has a citation with its page, and no other has one.

    The fields are as without citations. One request is sent, and it asks the provider for none.
    """
    result = batch(api).run().results()["a"]
    answer = cast("Invoice", result.parsed_response)
    assert (answer.invoice_no, answer.ship_to.city, answer.grand_total) == (
        "2026-0417",
        "Lisbon",
        29.16,
    )
    found = passages(result)
    assert found == {
        "invoice_no": (1, PAGES[0], "high", True),
        "ship_to.city": (2, PAGES[1], "high", True),
        "grand_total": (3, PAGES[2], "high", True),
    }
    [row] = pq.read_table("out/data").to_pylist()
    assert row["_citations"] == result.citations
    assert row["invoice_no"] == "2026-0417"
    assert JobResult.from_dict(result.to_dict()).citation_mappings == result.citation_mappings
    assert sent(emulator) == 1


@pytest.mark.parametrize("api", APIS)
@pytest.mark.usefixtures("emulator", "folder")
def test_places_in_a_text_are_slices(api: str) -> None:
    """A text has no pages: its passages are told by characters, as Python counts them."""
    result = batch(api, "invoice.txt").run().results()["a"]
    assert result.citation_mappings.keys() == {"invoice_no", "ship_to.city", "grand_total"}
    for [one] in result.citation_mappings.values():
        assert one["page_start"] is None
        assert TEXT[one["char_start"] : one["char_end"]] == one["cited_text"] != ""
        assert one["document"] in ("invoice.txt", None)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.usefixtures("folder")
def test_what_a_page_does_not_say_is_not_verified(emulator: Emulator, api: str) -> None:
    """A misread number has no citation that is verified, or graded more than low."""
    emulator.control.faults(kind="request_misread")
    result = batch(api).run().results()["a"]
    assert result.is_success()
    assert cast("Invoice", result.parsed_response).grand_total == 92.16
    found = passages(result)
    assert found.pop("grand_total", (None, None, "low", False))[2:] == ("low", False)
    assert all(one[2:] == ("high", True) for one in found.values())


@pytest.mark.parametrize("api", APIS)
@pytest.mark.usefixtures("folder")
def test_a_wrong_page_is_corrected(emulator: Emulator, api: str) -> None:
    """A quote that stands on another page than the model says is cited from that page."""
    emulator.control.faults(kind="request_other_page")
    result = batch(api).run().results()["a"]
    assert {field: one[0] for field, one in passages(result).items()} == {
        "invoice_no": 1,
        "ship_to.city": 2,
        "grand_total": 3,
    }


@pytest.mark.usefixtures("folder")
def test_citations_rest_on_the_document_that_was_sent(emulator: Emulator, folder: Path) -> None:
    """Whatever becomes of the file while its batch is open."""
    emulator.control.progress("seconds", 3600)
    run = batch().run(wait=False)
    while not sent(emulator):
        pass
    (folder / "invoice.pdf").unlink()
    emulator.control.progress("immediate")
    run.wait()
    assert set(passages(run.results()["a"])) == {"invoice_no", "ship_to.city", "grand_total"}


@pytest.mark.usefixtures("emulator", "folder")
def test_other_jobs_of_the_model_do_not_quote() -> None:
    """Jobs of one model may cite, or not; each is asked for what it is to say, and no more."""
    made = batch()
    made.add_job(id="b", file="invoice.pdf", prompt="Read it.", response_model=Invoice)
    run = made.run()
    results = run.results()
    assert results["b"].citations is None
    assert cast("Invoice", results["b"].parsed_response).invoice_no == "2026-0417"
    asked = ["quotes" in str(body["output_config"]) for body in bodies(Path("out")).values()]
    assert sorted(asked) == [False, True]


@pytest.mark.usefixtures("emulator", "folder")
def test_a_state_file_alone_asks_the_same(emulator: Emulator) -> None:
    """Its jobs quote as those that were added, and are not sent again."""
    before = batch().set_state("state.json").run().results()["a"]
    after = Batch().set_state("state.json").run().results()["a"]
    assert after.citations == before.citations
    assert sent(emulator) == 1


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"invoice_no": {"type": "string"}, "grand_total": {"type": "number"}},
    "required": ["invoice_no", "grand_total"],
}


def spec(api: str, **changes: Any) -> EnrichmentSpec:
    """Return a spec that reads each document of a folder."""
    keys: dict[str, Any] = {"name": "invoices", "source": {"documents": "*.pdf"}}
    keys |= {"file": "{{ path }}", "prompt": "Read it.", "max_tokens": 900, "output": "out"}
    keys |= {"response_schema": SCHEMA, "enable_citations": True, "pilot": False, **APIS[api]}
    return parse_spec({**keys, **changes})


def cited() -> dict[str, dict[str, tuple[str, int]]]:
    """Return document and page of each field's first citation, by the row's document."""
    return {
        row["path"]: {
            one["field"]: (one["document"], one["page_start"])
            for one in reversed(row["_citations"])
        }
        for row in pq.read_table("out/data").to_pylist()
    }


RIGHT = {"invoice_no": ("invoice.pdf", 1), "grand_total": ("invoice.pdf", 3)}


@pytest.mark.parametrize("api", APIS)
def test_rows_of_a_spec_cite(emulator: Emulator, folder: Path, api: str) -> None:
    """A spec's rows have passages for their fields; unchanged documents are not sent again."""
    (folder / "other.pdf").write_bytes(pdf("Nothing here.", "Invoice no.: 77-1"))
    assert enrich(spec(api)).outcomes == {"succeeded": 2}
    assert cited() == {"invoice.pdf": RIGHT, "other.pdf": {"invoice_no": ("other.pdf", 2)}}
    enrich(spec(api))
    assert sent(emulator) == 2


@pytest.mark.parametrize("api", APIS)
@pytest.mark.usefixtures("emulator", "folder")
def test_several_documents_of_a_row(api: str) -> None:
    """Each passage names its own document, and the page of that one."""
    Path("annex.pdf").write_bytes(pdf("Annex", "Remark: by rail"))
    fields = {**SCHEMA["properties"], "remark": {"type": "string"}}
    schema: dict[str, Any] = {"type": "object", "properties": fields, "required": list(fields)}
    source: dict[str, Any] = {
        "source": {"documents": "invoice.pdf"},
        "file": ["{{ path }}", "annex.pdf"],
    }
    enrich(spec(api, response_schema=schema, **source))
    assert cited()["invoice.pdf"] == {**RIGHT, "remark": ("annex.pdf", 2)}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.usefixtures("folder")
def test_passages_come_again_with_lost_rows(emulator: Emulator, packed: bool) -> None:
    """Rows that are landed again, also out of packs and without documents, have them as before."""
    enrich(spec("anthropic"))
    if packed:
        compact(spec("anthropic"), Settings())
    before = cited()
    for part in Path("out/data").iterdir():
        part.unlink()
    Path("invoice.pdf").unlink()
    Path("new.pdf").write_bytes(pdf("Invoice no.: 1-2"))
    enrich(spec("anthropic"))
    assert cited()["invoice.pdf"] == before["invoice.pdf"] == RIGHT
    assert sent(emulator) == 2


@pytest.mark.parametrize("size", [0, 400])
@pytest.mark.parametrize("api", APIS)
@pytest.mark.usefixtures("emulator", "folder")
def test_a_damaged_request_file_keeps_no_answer_from_landing(api: str, size: int) -> None:
    """Without the document that was sent, passages are not verified, and the row lands."""

    def collect(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        os.truncate(f"out/_batchata/requests/{chunk_id}.jsonl", size)
        return Steps().collect(ref, chunk_id)

    assert enrich(spec(api), steps=Steps(collect=collect)).outcomes == {"succeeded": 1}
    [row] = pq.read_table("out/data").to_pylist()
    assert {(one["grade"], one["verified"]) for one in row["_citations"]} == {("low", False)}


@pytest.mark.parametrize("kind", ["request_truncated", "request_invalid_answer"])
@pytest.mark.usefixtures("folder")
def test_another_attempt_cites_too(emulator: Emulator, kind: str) -> None:
    """A row whose first answer was of no use has the passages of the next one."""
    emulator.control.faults(kind=kind, times=1)
    receipt = enrich(spec("openai"))
    assert receipt.outcomes == {"succeeded": 1}
    assert sent(emulator) == 2
    assert cited() == {"invoice.pdf": RIGHT}


@pytest.mark.usefixtures("emulator", "folder")
def test_a_row_shows_its_passages() -> None:
    """`show --key` prints field, value, page and quote, and says which value no passage states."""
    fields = {**SCHEMA["properties"], "remark": {"type": "string"}}
    schema: dict[str, Any] = {"type": "object", "properties": fields, "required": list(fields)}
    enrich(spec("anthropic", response_schema=schema))
    [remark] = pq.read_table("out/data")["remark"].to_pylist()
    shown = one_row(spec("anthropic", response_schema=schema), ["path=invoice.pdf"]).text()
    passages = shown.partition("Passages that the answer rests on:\n")[2].partition("\n\n")[0]
    assert passages.splitlines() == [
        "  invoice_no = 2026-0417",
        "    page 1, invoice.pdf, high, verified, labelled 'Invoice no':",
        "      Invoice no.: 2026-0417",
        "  grand_total = 29.16",
        "    page 3, invoice.pdf, high, verified, labelled 'Grand total':",
        "      Grand total: 29.16",
        f"  remark = {remark}: no passage says it",
    ]


@pytest.mark.parametrize("file", ["invoice.pdf", "invoice.txt"])
@pytest.mark.usefixtures("emulator", "folder")
def test_a_page_shows_the_documents(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`show --key --open` opens a page with the documents that were sent, passages marked.

    Foreign text in it does nothing.
    """
    opened = list[str]()
    monkeypatch.setattr("webbrowser.open", opened.append)
    Path("invoice.txt").write_text(f"{TEXT}\n<script>alert(1)</script>")
    source = {"source": {"documents": file}}
    enrich(spec("anthropic", **source))
    Path(file).unlink()
    Path("spec.json").write_text(spec("anthropic", **source).model_dump_json(exclude_unset=True))
    done = CliRunner().invoke(app, ["show", "spec.json", "--key", f"path={file}", "--open"])
    assert done.exit_code == 0, done.output
    [url] = opened
    page = Path(unquote(urlsplit(url).path)).read_text()
    assert re.findall("<mark>(.*?)</mark>", page) == [PAGES[0], PAGES[2]]
    assert "<script>" not in page
    assert ("&lt;script&gt;" in page) == (file == "invoice.txt")


def test_only_one_row_is_opened() -> None:
    """Without a key, `--open` is refused."""
    done = CliRunner().invoke(app, ["show", "spec.json", "--open"])
    assert done.exit_code == 2
    assert "--open: it shows one row; name it with --key." in done.output
