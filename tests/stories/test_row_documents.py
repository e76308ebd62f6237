"""Documents of a spec's rows: what is sent, what is sent again, what is refused, what is gone."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest

from batchata_tasks import enrich as enrich_frame
from batchata_tasks.common.errors import SourceError, SpecError
from batchata_tasks.common.settings import Settings
from batchata_tasks.emulator import answer_text
from batchata_tasks.pipeline.enrich import enrich
from batchata_tasks.pipeline.steps import Steps
from batchata_tasks.progress.listener import LineProgress
from batchata_tasks.reports.one_row import one_row
from batchata_tasks.reports.plan import preview
from batchata_tasks.reports.source_row import SourceRow
from batchata_tasks.sources import document_urls
from batchata_tasks.spec.loading import parse_spec
from tests.support.books import all_chunks
from tests.support.commands import batchata, python, start
from tests.support.jobs import sent
from tests.support.office import docx, slides, xlsx
from tests.support.pdfs import locked, pdf, scanned
from tests.support.request_files import sent_bodies
from tests.support.table import APIS, MODELS, SCHEMA, open_batches
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batchata_tasks.emulator import Emulator
    from batchata_tasks.execution.run_ref import RunRef
    from batchata_tasks.pipeline.receipt import Receipt
    from batchata_tasks.spec.enrichment import EnrichmentSpec

NAMES = ("a", "b", "c")
PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "cut": (pdf("order")[:40], "cannot be read as a PDF"),
    "locked": (locked(), "is protected by a password"),
    "noise": (b"\x00\x01", "is not a document that can be sent"),
    "picture": (PIXEL, "is not what its name says, but image/png"),
}


class Inbox:
    """A folder with documents, and runs over it: as a table of them, or named by a CSV file."""

    def __init__(self, emulator: Emulator, api: str, kind: str) -> None:
        self.emulator, self.kind = emulator, kind
        self.provider, self.endpoint = ("openai", api) if api == "responses" else (api, "chat")

    def spec(self, **changes: Any) -> EnrichmentSpec:
        source = {"documents": "inbox/*.pdf"} if self.kind == "documents" else "table.csv"
        keys = {
            "name": "inbox",
            "source": source,
            "model": MODELS[self.provider],
            "endpoint": self.endpoint,
            "prompt": "What was ordered?",
            "file": "{{ path }}",
            "max_tokens": 50,
            "output": "out",
            "pilot": False,
        }
        if self.kind == "table":
            keys["key"] = "id"
        return parse_spec({**keys, **changes})

    def run(self, steps: Steps | None = None, **changes: Any) -> Receipt:
        return enrich(self.spec(**changes), steps=steps)

    def rows(self) -> dict[str, dict[str, Any]]:
        rows = pq.read_table("out/data").to_pylist()
        column = "path" if self.kind == "documents" else "id"
        found = {row[column].removeprefix("inbox/").removesuffix(".pdf"): row for row in rows}
        assert len(found) == len(rows)
        return found

    @property
    def sent(self) -> int:
        return sent(self.emulator)


def write_table(folder: Path, rows: dict[str, str]) -> None:
    """Write a table of keys and paths."""
    with (folder / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("id", "path"), *rows.items()])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that runs are in, with three documents and a table of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inbox").mkdir()
    for name in NAMES:
        (tmp_path / f"inbox/{name}.pdf").write_bytes(pdf(f"Order {name}: forty lamps."))
    write_table(tmp_path, {name: f"inbox/{name}.pdf" for name in NAMES})
    return tmp_path


@pytest.fixture(params=["documents", "table"])
def inbox(emulator: Emulator, request: pytest.FixtureRequest) -> Inbox:
    return Inbox(emulator, "anthropic", request.param)


@pytest.fixture
def documents(emulator: Emulator) -> Inbox:
    return Inbox(emulator, "anthropic", "documents")


@pytest.fixture
def table(emulator: Emulator) -> Inbox:
    return Inbox(emulator, "anthropic", "table")


def dying(step: str) -> Steps:
    """Return steps of which one is as far as a run comes: it dies there."""

    def die(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        del ref, chunk_id
        raise KeyboardInterrupt

    return Steps(**{step: die})


def refusal(run: Callable[[], object], kind: type[Exception] = SourceError) -> str:
    with pytest.raises(kind) as told:
        run()
    return str(told.value)


@pytest.mark.parametrize("kind", ["documents", "table"])
@pytest.mark.parametrize("api", APIS)
def test_each_row_is_asked_about_its_document(
    emulator: Emulator, folder: Path, api: str, kind: str
) -> None:
    """Each row is sent with its own document, pays within its bound, and is sent once."""
    inbox = Inbox(emulator, api, kind)
    receipt = inbox.run(cost_limit_usd=1)
    assert (receipt.exit_code, receipt.outcomes) == (0, {"succeeded": 3})
    bodies, rows = sent_bodies(folder / "out"), inbox.rows()
    assert set(rows) == set(NAMES)
    for name, row in rows.items():
        body = bodies[row["_custom_id"]]
        files = [other for other in NAMES if encoded(folder / f"inbox/{other}.pdf") in text(body)]
        assert files == [name]
        assert row["_response"] == answer_text(inbox.provider, body)
    spent = sum(int(row["_cost_usd"] * 10**12) for row in rows.values())
    assert 0 < spent <= sum(chunk.bound or 0 for chunk in all_chunks())
    assert inbox.run(cost_limit_usd=1).plan["up_to_date"] == inbox.sent == 3


def encoded(path: Path) -> str:
    return b64encode(path.read_bytes()).decode()


def text(body: dict[str, Any]) -> str:
    return orjson.dumps(body).decode()


def test_only_what_changed_is_sent(inbox: Inbox, folder: Path) -> None:
    """Another content is another input; one that was only touched is not; a new one is sent."""
    inbox.run()
    (folder / "inbox/a.pdf").write_bytes(pdf("Order a: fifty lamps."))
    (folder / "inbox/b.pdf").touch()
    (folder / "inbox/d.pdf").write_bytes(pdf("Order d: a cable."))
    write_table(folder, {name: f"inbox/{name}.pdf" for name in (*NAMES, "d")})
    before = inbox.rows()
    receipt = inbox.run()
    assert receipt.plan["reasons"] == {"input": 1, "new": 1}
    now = inbox.rows()
    assert {name for name in now if now[name] != before.get(name)} == {"a", "d"}
    assert encoded(folder / "inbox/a.pdf") in text(
        sent_bodies(folder / "out")[now["a"]["_custom_id"]]
    )
    assert inbox.run().plan["reasons"] == {}


def test_a_renamed_document_is_the_same(table: Inbox, folder: Path) -> None:
    """Under the same key, a document of the same content is no reason to send a row again."""
    table.run()
    (folder / "inbox/a.pdf").rename(folder / "inbox/other.pdf")
    write_table(folder, {"a": "inbox/other.pdf", "b": "inbox/b.pdf", "c": "inbox/c.pdf"})
    assert table.run().plan["up_to_date"] == table.sent == 3


@pytest.mark.parametrize("step", ["chunk", "submit", "poll", "collect"])
def test_a_run_that_died_needs_no_document(inbox: Inbox, folder: Path, step: str) -> None:
    """Whenever a run dies, the same one goes on without the documents, and pays once.

    Files are rows of a folder: those that are gone before they were sent left the source.
    """
    with pytest.raises(KeyboardInterrupt):
        inbox.run(dying(step))
    for path in (folder / "inbox").iterdir():
        path.unlink()
    (folder / "inbox").rmdir()
    if inbox.kind == "documents" and not inbox.sent:
        assert refusal(inbox.run).startswith("source: there is no file inbox/*.pdf")
        assert inbox.sent == 0
        return
    receipt = inbox.run()
    assert (receipt.exit_code, receipt.outcomes) == (0, {"succeeded": 3})
    assert (set(inbox.rows()), inbox.sent) == (set(NAMES), 3)
    receipt = inbox.run()
    assert (receipt.exit_code, receipt.outcomes, inbox.sent) == (0, {}, 3)


@pytest.mark.parametrize("kind", ["documents", "table"])
@pytest.mark.parametrize("api", APIS)
def test_a_killed_run_lands_without_its_documents(
    emulator: Emulator, folder: Path, api: str, kind: str
) -> None:
    """Killed while its batch is at the provider, the same command lands it, documents or not.

    Then it refuses a document that was emptied meanwhile, which is another input.
    """
    inbox = Inbox(emulator, api, kind)
    (folder / "spec.json").write_text(inbox.spec().model_dump_json(exclude_unset=True))
    words = ("run", "spec.json", "--direct")
    with open_batches(emulator), start(*words, cwd=folder) as run:
        until(lambda: inbox.sent == 3)
        run.send_signal(signal.SIGKILL)
        run.wait()
    (folder / "inbox/a.pdf").unlink()
    (folder / "inbox/b.pdf").write_bytes(b"")
    for _ in range(2):
        done = batchata(*words, cwd=folder)
        assert (done.returncode, "inbox/b.pdf is empty" in done.stderr) == (2, True)
        assert (set(inbox.rows()), inbox.sent) == (set(NAMES), 3)
    assert {row["_status"] for row in inbox.rows().values()} == {"succeeded"}


def test_what_was_sent_lands_before_documents_are_looked_at(inbox: Inbox, folder: Path) -> None:
    """If the spec has changed since, too, the paid answers land, and then documents count."""
    with pytest.raises(KeyboardInterrupt):
        inbox.run(dying("poll"))
    (folder / "inbox/a.pdf").unlink()
    changed = {"prompt": "How many were ordered?"}
    if inbox.kind == "documents":  # the row has left the source
        assert inbox.run(**changed).outcomes == {"succeeded": 2}
        assert inbox.sent == 5
    else:
        told = refusal(lambda: inbox.run(**changed))
        assert told == (
            "row 1 (id='a'): file: inbox/a.pdf cannot be read (No such file or directory); check "
            "the path; or set `on_bad_document: skip`, which leaves such rows unsent."
        )
        assert inbox.sent == 3
        receipt = inbox.run(**changed, on_bad_document="skip")
        assert (receipt.exit_code, inbox.sent) == (3, 5)
    assert set(inbox.rows()) == set(NAMES)
    assert inbox.rows()["a"]["_status"] == "succeeded"


def test_a_plan_believes_that_what_was_sent_lands(inbox: Inbox, folder: Path) -> None:
    """What is at the provider counts as on its way, whether or not its document is there.

    One that changed is sent again, as the plan says, once its answer has landed.
    """
    with open_batches(inbox.emulator):
        with pytest.raises(KeyboardInterrupt):
            inbox.run(dying("poll"))
        (folder / "inbox/a.pdf").unlink()
        (folder / "inbox/b.pdf").write_bytes(pdf("Order b: changed."))
        summary = preview(inbox.spec(), Settings()).summary
        there = 2 if inbox.kind == "table" else 1
        assert (summary.in_flight, summary.reasons) == (there, {"input": 1})
    assert inbox.run().plan["reasons"] == {"input": 1}
    assert (set(inbox.rows()), inbox.sent) == (set(NAMES), 4)
    assert inbox.run().plan["reasons"] == {}


def test_a_landed_row_needs_its_document_no_more(inbox: Inbox, folder: Path) -> None:
    """A document that is gone changes nothing of its row; one that is to be sent is refused."""
    inbox.run()
    (folder / "inbox/a.pdf").unlink()
    before = inbox.rows()
    receipt = inbox.run()
    assert (receipt.exit_code, receipt.outcomes, inbox.rows()) == (0, {}, before)
    count = "gone_documents" if inbox.kind == "table" else "kept_missing"
    assert receipt.plan[count] == preview(inbox.spec(), Settings()).summary.to_json()[count] == 1
    (folder / "inbox/a.pdf").write_bytes(pdf("Order a: forty lamps."))
    assert inbox.run().plan["up_to_date"] == inbox.sent == 3


def test_a_gone_document_of_a_new_row_is_refused_by_name(table: Inbox, folder: Path) -> None:
    """A row that has to be sent needs its document, and with `skip` is sent once that is there."""
    write_table(folder, {"a": "inbox/a.pdf", "x": "inbox/x.pdf"})
    told = refusal(table.run)
    assert told.startswith("row 2 (id='x'): file: inbox/x.pdf cannot be read (No such file")
    assert table.sent == 0
    receipt = table.run(on_bad_document="skip")
    assert (receipt.exit_code, receipt.plan["bad_documents"], table.sent) == (3, 1, 1)
    assert table.rows()["x"]["_error"].startswith("document: file: inbox/x.pdf cannot be read")
    assert table.run(on_bad_document="skip").plan["exhausted"] == 1
    (folder / "inbox/x.pdf").write_bytes(pdf("Order x."))
    receipt = table.run(on_bad_document="skip")
    assert (receipt.exit_code, receipt.plan["reasons"]) == (0, {"input": 1})
    assert table.rows()["x"]["_status"] == "succeeded"


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_document_is_told_before_it_costs(inbox: Inbox, folder: Path, bad: str) -> None:
    """One sentence names the row and the file, and nothing is sent; `skip` sends the others."""
    content, problem = BAD[bad]
    (folder / "inbox/b.pdf").write_bytes(content)
    key = "path='inbox/b.pdf'" if inbox.kind == "documents" else "id='b'"
    for run in (inbox.run, lambda: preview(inbox.spec(), Settings())):
        assert refusal(run).startswith(f"row 2 ({key}): file: inbox/b.pdf {problem}")
    assert inbox.sent == 0
    receipt = inbox.run(on_bad_document="skip", cost_limit_usd=1)
    assert (receipt.exit_code, receipt.outcomes) == (3, {"succeeded": 2, "errored": 1})
    row = inbox.rows()["b"]
    assert row["_error"].startswith(f"document: file: inbox/b.pdf {problem}")
    assert (row["_attempts"], row["_cost_usd"], row["_batch_id"]) == (0, 0, None)
    (folder / "inbox/b.pdf").write_bytes(pdf("Order b: mended."))
    assert inbox.run(on_bad_document="skip", cost_limit_usd=1).outcomes == {"succeeded": 1}
    assert inbox.sent == 3


def test_only_the_sentence_is_said_of_a_bad_document(documents: Inbox, folder: Path) -> None:
    """The command ends with 2 and one sentence; what readers of PDFs say is not shown."""
    (folder / "inbox/b.pdf").write_bytes(BAD["cut"][0])
    spec = documents.spec(columns=["pages"])
    (folder / "spec.json").write_text(spec.model_dump_json(exclude_unset=True))
    for words in (("plan", "spec.json"), ("run", "spec.json", "--direct")):
        done = batchata(*words, cwd=folder)
        (line,) = [one for one in done.stderr.splitlines() if not one.startswith("planning")]
        assert (done.returncode, line.startswith("Error: row 2 (path='inbox/b.pdf'): ")) == (
            2,
            True,
        )


def test_an_answer_outlives_a_document_that_went_bad(inbox: Inbox, folder: Path) -> None:
    """With `skip`, a row that was answered keeps its answer when its document cannot be sent."""
    inbox.run()
    before = inbox.rows()
    (folder / "inbox/a.pdf").write_bytes(b"")
    receipt = inbox.run(on_bad_document="skip")
    assert (receipt.exit_code, inbox.rows(), inbox.sent) == (3, before, 3)


OUT = {
    "up": "../secret.pdf",
    "up within": "inbox/../../secret.pdf",
    "absolute": "{folder}/secret.pdf",
    "link": "inbox/link.pdf",
    "linked folder": "inbox/linked/secret.pdf",
}


@pytest.mark.parametrize("way", OUT)
def test_no_document_lies_elsewhere(
    table: Inbox, folder: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Whatever leads out of the folder of documents is refused, and never opened."""
    (folder / "secret.pdf").write_bytes(pdf("secret"))
    here = folder / "project"
    (here / "inbox").mkdir(parents=True)
    (here / "inbox/link.pdf").symlink_to(folder / "secret.pdf")
    (here / "inbox/linked").symlink_to(folder)
    monkeypatch.chdir(here)
    path = OUT[way].format(folder=folder)
    write_table(here, {"a": path})
    told = refusal(table.run)
    assert told.startswith(f"row 1 (id='a'): file: {path} leads out of the folder of documents, ")
    assert table.run(on_bad_document="skip").outcomes == {"errored": 1}
    assert table.sent == 0
    assert table.run(document_root=str(folder)).outcomes == {"succeeded": 1}


@pytest.mark.parametrize(
    ("url", "root", "problem"),
    [
        ("https://example.com/a.pdf", None, "is a URL, and documents have to lie in a folder"),
        ("http://127.0.0.1/a.pdf", "https://example.com", "documents are fetched by https alone"),
        ("https://127.0.0.1/a.pdf", "https://example.com", "does not lie below"),
        ("https://127.0.0.1/a.pdf", "https://127.0.0.1/", "127.0.0.1 is no public address"),
        ("https://0x7f.1/a.pdf", "https://0x7f.1/", "127.0.0.1 is no public address"),
        ("https://[::1]/a.pdf", "https://[::1]/", "::1 is no public address"),
        ("https://169.254.169.254/a.pdf", "https://169.254.169.254/", "is no public address"),
    ],
)
def test_urls_of_documents_lie_where_the_spec_says(
    table: Inbox, folder: Path, url: str, root: str | None, problem: str
) -> None:
    """A URL is fetched only from below `document_root`, and never from one's own network."""
    write_table(folder, {"a": url})
    told = refusal(lambda: table.run(document_root=root))
    assert told.startswith("row 1 (id='a'): file: ")
    assert problem in told
    assert table.run(document_root=root, on_bad_document="skip").outcomes == {"errored": 1}


def test_a_root_that_cannot_be_asked_is_refused(table: Inbox) -> None:
    """A `document_root` is a folder or an https URL."""
    told = refusal(lambda: table.run(document_root="ftp://example.com/"), SpecError)
    assert told.startswith("document_root: ftp://example.com/: documents are fetched by https")


def test_a_row_whose_document_is_fetched(
    table: Inbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies at a URL is sent, and counts by its content; one that is gone changes nothing."""
    content = pdf("Order a.")

    def asked(_url: str) -> list[bytes]:
        if not content:
            message = "file: it cannot be fetched."
            raise SpecError(message)
        return [content]

    monkeypatch.setattr(document_urls, "_blocks", asked)
    write_table(folder, {"a": "https://example.com/docs/a.pdf?signature=x"})
    root = {"document_root": "https://example.com/docs"}
    assert table.run(**root).outcomes == {"succeeded": 1}
    [body] = sent_bodies(folder / "out").values()
    assert b64encode(content).decode() in text(body)
    assert '"title":"a.pdf"' in text(body)
    assert table.run(**root).plan["up_to_date"] == 1
    content = pdf("Order a, changed.")
    assert table.run(**root).plan["reasons"] == {"input": 1}
    content = b""
    assert table.run(**root).plan["gone_documents"] == 1


def test_the_folder_of_documents_can_be_named(inbox: Inbox, folder: Path) -> None:
    """Within `document_root` a path may be whole; outside of it, none will do."""
    write_table(folder, {name: str(folder / f"inbox/{name}.pdf") for name in NAMES})
    (folder / "other").mkdir()
    assert "leads out of the folder" in refusal(lambda: inbox.run(document_root="other"))
    assert inbox.run(document_root="inbox").outcomes == {"succeeded": 3}


def test_a_row_without_a_path_has_no_document(table: Inbox, folder: Path) -> None:
    """A template that renders to nothing attaches nothing."""
    write_table(folder, {"a": "inbox/a.pdf", "b": "", "c": " "})
    assert table.run().outcomes == {"succeeded": 3}
    bodies = sent_bodies(folder / "out")
    with_document = [
        name for name, row in table.rows().items() if "JVBERi" in text(bodies[row["_custom_id"]])
    ]
    assert with_document == ["a"]
    assert table.run().plan["up_to_date"] == 3


def test_a_null_names_no_document(table: Inbox, folder: Path) -> None:
    """A null in a column that only `file` uses is no document, whatever `on_null` says."""
    rows = [{"id": "a", "path": "inbox/a.pdf"}, {"id": "b", "path": None}]
    (folder / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    assert table.run(source="rows.jsonl").outcomes == {"succeeded": 2}


@pytest.mark.parametrize("api", APIS)
def test_a_row_may_have_several_documents(emulator: Emulator, folder: Path, api: str) -> None:
    """They come in the order of the list, before the prompt, and each counts as input."""
    inbox = Inbox(emulator, api, "table")
    files = {"file": ["{{ path }}", "inbox/c.pdf"], "where": "id != 'c'"}
    inbox.run(**files, cost_limit_usd=1)
    body = text(sent_bodies(folder / "out")[inbox.rows()["b"]["_custom_id"]])
    places = [body.index(encoded(folder / f"inbox/{name}.pdf")) for name in ("b", "c")]
    assert places == sorted(places)
    assert places[1] < body.index("What was ordered?")
    (folder / "inbox/c.pdf").write_bytes(pdf("Terms of trade."))
    assert inbox.run(**files, cost_limit_usd=1).plan["reasons"] == {"input": 2}


def test_requests_with_and_without_documents_differ(table: Inbox, folder: Path) -> None:
    """To attach documents to a table that has landed sends its rows again, and so does citing."""
    write_table(folder, {"a": "inbox/a.pdf", "b": "inbox/b.pdf", "c": ""})
    table.run(file=None)
    assert table.run().plan["reasons"] == {"input": 2, "model": 1}
    assert table.run(enable_citations=True).plan["reasons"] == {"model": 3}


def test_answers_cite_documents(inbox: Inbox) -> None:
    """Asked for citations, answers say which passage of their document they rest on."""
    inbox.run(enable_citations=True)
    for name, row in inbox.rows().items():
        [citation] = row["_citations"]
        assert citation["cited_text"] == f"Order {name}: forty lamps."
        assert (citation["document"], citation["page_start"]) == (f"{name}.pdf", 1)


def test_what_has_no_text_is_not_cited(documents: Inbox, folder: Path) -> None:
    """Of pages that are pictures nothing can be cited: that is told before it costs.

    A document that has hardly any text is sent, and said to be so.
    """
    (folder / "inbox/b.pdf").write_bytes(scanned("A cover sheet.", None, None))
    assert preview(documents.spec(enable_citations=True), Settings()).summary.textless_pages == 2
    (folder / "inbox/c.pdf").write_bytes(scanned(None, None))
    (folder / "inbox/d.png").write_bytes(PIXEL)
    told = refusal(lambda: documents.run(enable_citations=True))
    assert told.startswith("row 3 (path='inbox/c.pdf'): file: inbox/c.pdf has no text that could")
    assert documents.sent == 0
    notes = list[str]()
    changes = {"on_bad_document": "skip", "source": {"documents": "inbox/*"}}
    spec = documents.spec(enable_citations=True, **changes)
    receipt = enrich(spec, progress=LineProgress(notes.append))
    assert (receipt.outcomes, documents.sent) == ({"succeeded": 2, "errored": 2}, 2)
    picture = documents.rows()["d.png"]["_error"]
    assert "inbox/d.png is a picture, of which nothing can be cited" in picture
    assert receipt.plan["textless_rows"] == 1
    hardly_any = (
        "2 pages have no text that could be cited, in documents of 1 row, such as pages 2, 3 of "
        "b.pdf."
    )
    assert f"enable_citations: {hardly_any}" in notes
    (folder / "inbox/d.png").unlink()
    assert documents.run().outcomes == {"succeeded": 3}


def test_what_cannot_be_cited_is_refused(inbox: Inbox) -> None:
    """Where no answer can cite, a spec that asks for it is refused before anything is read."""
    told = refusal(lambda: inbox.run(enable_citations=True, model=MODELS["openai"]), SpecError)
    assert told.startswith("enable_citations: the openai API cites no documents; ask for fields")


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("name", ["a.pdf", "poem.txt"])
def test_a_row_shows_its_document(emulator: Emulator, folder: Path, api: str, name: str) -> None:
    """`show --key` names the document among the inputs, and knows the prompt again."""
    inbox = Inbox(emulator, api, "documents")
    (folder / "inbox/poem.txt").write_text("Roses are red.")
    spec = {"source": {"documents": f"inbox/{name}"}}
    inbox.run(**spec)
    row = one_row(inbox.spec(**spec), [f"path=inbox/{name}"])
    assert isinstance(row.source, SourceRow)
    assert (row.has_changed, row.source.inputs) == (False, {"path": f"inbox/{name}"})
    changed = one_row(inbox.spec(**spec, prompt="How many?"), [f"path=inbox/{name}"])
    assert changed.has_changed


@pytest.mark.parametrize("fault", ["request_truncated", "request_invalid_answer", "request_error"])
@pytest.mark.parametrize("api", APIS)
def test_another_attempt_has_the_document_too(
    emulator: Emulator, folder: Path, api: str, fault: str
) -> None:
    """A row of a later round is sent with its document, bounded as before, also if that is gone."""
    inbox = Inbox(emulator, api, "table")
    write_table(folder, {"a": "inbox/a.pdf"})
    emulator.control.faults(kind=fault, contains="What", times=1)

    def collect(ref: RunRef, chunk_id: str) -> dict[str, Any]:
        (folder / "inbox/a.pdf").unlink(missing_ok=True)
        return Steps().collect(ref, chunk_id)

    receipt = inbox.run(Steps(collect=collect), response_schema=SCHEMA, cost_limit_usd=1)
    assert (receipt.rounds, receipt.outcomes) == (2, {"succeeded": 1})
    bodies = sent_bodies(folder / "out").values()
    assert ["JVBERi" in text(body) for body in bodies] == [True, True]
    first, second = (chunk.bound or 0 for chunk in all_chunks())
    assert first <= second <= 2 * first


@pytest.mark.parametrize("lost", ["out/data", "out"])
def test_lost_rows_come_back_by_their_documents(inbox: Inbox, folder: Path, lost: str) -> None:
    """If the dataset is lost, rows are recovered from what was answered, for free.

    As long as the results are on disk, that needs no document.
    """
    inbox.run()
    before = inbox.rows()
    shutil.rmtree(folder / lost)
    if lost == "out/data":
        shutil.rmtree(folder / "inbox")
    receipt = inbox.run()
    assert (receipt.exit_code, inbox.sent) == (0, 3)
    now = inbox.rows()
    assert {name: row["_response"] for name, row in now.items()} == {
        name: row["_response"] for name, row in before.items()
    }


PLANNED = """
import resource
from batchata_tasks.common.settings import Settings
from batchata_tasks.reports.plan import preview
from batchata_tasks.spec.loading import load_spec

def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

spec = load_spec("spec.json")
assert preview(spec.model_copy(update={"limit": 1}), Settings()).summary.requests == 1
before = most()
assert preview(spec, Settings()).summary.requests == 103
print(most() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
def test_documents_are_not_held_in_memory(documents: Inbox, folder: Path) -> None:
    """A plan over 100 MB of documents takes no more memory than for those it writes at once."""
    for number in range(100):
        (folder / f"inbox/{number:03}.pdf").write_bytes(pdf(f"Order {number}.", size=1_000_000))
    spec = documents.spec(columns=["sha256", "pages"])
    (folder / "spec.json").write_text(spec.model_dump_json(exclude_unset=True))
    done = python(PLANNED, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 80  # MB


def test_frames_have_documents(emulator: Emulator, folder: Path) -> None:
    """A frame's rows go with documents, too; an answer whose document is gone is given back."""
    frame = pd.DataFrame({"id": NAMES, "path": [f"inbox/{name}.pdf" for name in NAMES]})
    keys: dict[str, Any] = {"key": "id", "model": MODELS["anthropic"], "file": "{{ path }}"}

    def ask(prompt: str = "What was ordered?", **changes: Any) -> pd.DataFrame:
        return enrich_frame(frame, prompt=prompt, output="out", **{**keys, **changes})

    assert list(ask()["_status"]) == ["succeeded"] * 3
    assert '"title":"a.pdf"' in text(next(iter(sent_bodies(folder / "out").values())))
    (folder / "inbox/a.pdf").unlink()
    (folder / "inbox/b.pdf").write_bytes(b"")
    again = ask(on_bad_document="skip")
    assert (list(again["_status"].isna()), sent(emulator)) == ([False, True, False], 3)
    other = ask("How many?", on_bad_document="skip")
    assert (list(other["_status"].isna()), sent(emulator)) == ([True, True, False], 4)


def test_a_document_is_no_table(table: Inbox) -> None:
    """Who names a document as a source is told how documents are written."""
    told = refusal(lambda: table.run(source="inbox/a.pdf"))
    assert told == (
        "source: inbox/a.pdf is a document, and no table; write `source: {documents: inbox/a.pdf}` "
        "for a table of them."
    )


def test_a_path_that_no_file_can_have_is_refused(table: Inbox, folder: Path) -> None:
    """A path may be any text: it is a document that cannot be sent, and nothing worse."""
    paths = ["\0", "x" * 5000, "~nobody/a.pdf", "inbox", "\n..\n"]
    rows = [{"id": str(number), "path": path} for number, path in enumerate(paths)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    receipt = table.run(source="rows.jsonl", on_bad_document="skip")
    assert (receipt.outcomes, table.sent) == ({"errored": len(paths)}, 0)


def test_a_pattern_without_files_is_told(documents: Inbox, folder: Path) -> None:
    """A pattern of which nothing ever was is refused; one that is empty by now is no error."""
    told = refusal(lambda: documents.run(source={"documents": "inbx/*.pdf"}))
    assert (
        told == "source: there is no file inbx/*.pdf (paths are relative to the folder you run in)."
    )
    documents.run()
    for path in (folder / "inbox").iterdir():
        path.unlink()
    assert documents.run().exit_code == 0


def test_rows_of_documents_that_left_may_be_deleted(documents: Inbox, folder: Path) -> None:
    """A document that is deleted is a row that left the source, and goes by `on_missing`."""
    documents.run()
    (folder / "inbox/a.pdf").unlink()
    documents.run(on_missing="delete", max_missing_share=0.5)
    assert set(documents.rows()) == {"b", "c"}


def test_columns_of_documents_are_columns(documents: Inbox) -> None:
    """They can be carried, used by `where`, and printed in a prompt."""
    documents.run(
        columns=["name", "pages", "sha256"], where="name != 'c.pdf'", prompt="{{ pages }} pages"
    )
    rows = documents.rows()
    assert {name: (row["name"], row["pages"]) for name, row in rows.items()} == {
        "a": ("a.pdf", 1),
        "b": ("b.pdf", 1),
    }


def test_documents_are_no_part_of_the_output(documents: Inbox) -> None:
    """A pattern that would match what runs write is refused."""
    told = refusal(lambda: documents.run(source={"documents": "**/*.json"}), SpecError)
    assert told.startswith("output: ")
    assert "out is within the source **/*.json" in told


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-8-sig"])
@pytest.mark.parametrize("api", APIS)
def test_a_text_is_sent_as_what_it_says(
    emulator: Emulator, folder: Path, api: str, encoding: str
) -> None:
    """Decoded, without a mark; places of passages fit the text as Python decodes it.

    It is told apart by its bytes, so that another encoding is another input, and nothing else is.
    """
    written = "Straße: „Zürcher“ 5 €\nTotal: 29.16\n"
    file = folder / "inbox/note.txt"
    file.write_bytes(written.encode(encoding))
    inbox = Inbox(emulator, api, "documents")
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    more: dict[str, Any] = {"enable_citations": True, "response_schema": schema, "max_tokens": 300}
    spec = inbox.spec(source={"documents": "inbox/*.txt"}, columns=["media_type"], **more)
    assert enrich(spec).outcomes == {"succeeded": 1}
    [body] = sent_bodies(folder / "out").values()
    assert orjson.dumps(written).decode()[1:-1] in orjson.dumps(body).decode()
    [row] = pq.read_table(folder / "out/data").to_pylist()
    assert (row["media_type"], row["total"]) == ("text/plain", 29.16)
    [one] = row["_citations"]
    read = file.read_bytes().decode(encoding)
    assert read[one["char_start"] : one["char_end"]] == one["cited_text"] == "Total: 29.16"
    assert enrich(spec).outcomes == {}
    file.write_bytes(written.encode())
    assert preview(spec, Settings()).summary.reasons == {"input": 1}


def test_all_bad_documents_are_told_at_once(inbox: Inbox, folder: Path) -> None:
    """One line for each of the first twenty, whatever their names are, and how many more there are.

    Nothing is sent; with `skip`, those that can be sent are.
    """
    for number in range(30):
        (folder / f"inbox/d{number:02}.pdf").write_bytes(b"")
    (folder / "inbox/d\n%ü.pdf").write_bytes(BAD["locked"][0])
    (folder / "inbox/c.pdf").write_bytes(BAD["cut"][0])
    paths = sorted(path.name for path in (folder / "inbox").iterdir())
    write_table(folder, {name: f"inbox/{name}" for name in paths})
    head, *lines, last = refusal(inbox.run).splitlines()
    assert head == (
        "32 rows have a document that cannot be sent; mend them, or set `on_bad_document: skip`, "
        "which leaves such rows unsent:"
    )
    assert (len(lines), last) == (20, "  and 12 more.")
    assert "inbox/c.pdf cannot be read as a PDF" in lines[0]
    assert "is protected by a password" in lines[1]
    assert all("inbox/d" in line and "is empty" in line for line in lines[2:])
    assert sent(inbox.emulator) == 0
    assert preview(inbox.spec(on_bad_document="skip"), Settings()).summary.requests == 2


OFFICE = {
    "order.docx": docx("Order 7", "Total: 29.16"),
    "order.xlsx": xlsx({"Order 7": [["Total: 29.16"]]}),
    "order.pptx": slides(("Order 7", "Total: 29.16")),
}


@pytest.mark.parametrize("name", OFFICE)
@pytest.mark.parametrize("api", APIS)
def test_an_office_document_is_sent_as_a_text(
    emulator: Emulator, folder: Path, api: str, name: str
) -> None:
    """It is bounded, paid and cited as a text is, and sent once."""
    (folder / "inbox" / name).write_bytes(OFFICE[name])
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    more: dict[str, Any] = {"enable_citations": True, "response_schema": schema, "max_tokens": 300}
    inbox = Inbox(emulator, api, "documents")
    changes = {"source": {"documents": "inbox/order.*"}, "columns": ["media_type", "pages"]}
    spec = inbox.spec(**changes, cost_limit_usd=1, **more)
    assert enrich(spec).outcomes == {"succeeded": 1}
    [row] = pq.read_table(folder / "out/data").to_pylist()
    assert row["media_type"].startswith("application/vnd.openxmlformats-officedocument.")
    assert (row["pages"], row["total"]) == (None, 29.16)
    assert [one["verified"] for one in row["_citations"]] == [True]
    assert enrich(spec).outcomes == {}
    assert sent(emulator) == 1


def test_what_is_wrong_with_an_office_document_is_told(inbox: Inbox, folder: Path) -> None:
    """As with any other document: by name, before it costs."""
    (folder / "inbox/b.pdf").write_bytes(docx("Total: 5"))
    assert "inbox/b.pdf is not what its name says" in refusal(inbox.run)
    assert sent(inbox.emulator) == 0


@pytest.mark.parametrize("api", APIS)
def test_a_name_of_several_lines_is_one_line(emulator: Emulator, folder: Path, api: str) -> None:
    """The title of a document does not run into its text, so that passages are found in it."""
    (folder / "inbox/a:\n\nb%20.txt").write_text("Total: 29.16")
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    more: dict[str, Any] = {"enable_citations": True, "response_schema": schema, "max_tokens": 300}
    spec = Inbox(emulator, api, "documents").spec(source={"documents": "inbox/*.txt"}, **more)
    assert enrich(spec).outcomes == {"succeeded": 1}
    [row] = pq.read_table(folder / "out/data").to_pylist()
    [one] = row["_citations"]
    assert (one["document"], one["char_start"], one["verified"]) == ("a:  b%20.txt", 0, True)
