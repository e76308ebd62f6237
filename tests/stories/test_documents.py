"""Documents: PDFs, pictures and texts that travel with jobs, their cost, and citations of them."""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any, cast

import orjson
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from batchata_tasks import AnthropicProvider, Batch, Job, OpenAIProvider, SpecError
from batchata_tasks.common.money import usd
from batchata_tasks.dataset.manifest import PlanWriter
from batchata_tasks.emulator import answer_text
from batchata_tasks.pricing.lookup import published_rates
from batchata_tasks.providers import provider_type
from batchata_tasks.sources.documents import read
from batchata_tasks.types.answer import Usage
from batchata_tasks.types.outcome import Outcome
from tests.support.books import all_chunks
from tests.support.jobs import bodies, sent
from tests.support.pdfs import locked, pdf, scanned

if TYPE_CHECKING:
    from pathlib import Path

    from batchata_tasks.emulator import Emulator

CLAUDE, GPT = "claude-haiku-5-5", "gpt-6-luna"
APIS = {
    "anthropic": {"model": CLAUDE},
    "openai": {"model": GPT},
    "responses": {"model": GPT, "endpoint": "responses"},
}
PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
POEM = "Roses are red. Violets are blue.\nSugar is sweet."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a document of each kind."""
    (tmp_path / "report.pdf").write_bytes(pdf("Sales rose by a fifth.", "Costs fell."))
    (tmp_path / "poem.txt").write_text(POEM)
    (tmp_path / "dot.png").write_bytes(PIXEL)
    return tmp_path


@pytest.fixture
def batch(emulator: Emulator, folder: Path) -> Batch:
    del emulator
    return Batch(folder / "out").set_default_params(model=CLAUDE, max_tokens=100)


@pytest.mark.parametrize("api", APIS)
def test_documents_of_each_kind_are_sent_and_paid_for(batch: Batch, folder: Path, api: str) -> None:
    """Under a limit, each job is answered and costs what its line was billed.

    That is within what was reserved for it.
    """
    batch.set_default_params(**cast("Any", APIS[api])).add_cost_limit(2)
    for name in ("report.pdf", "poem.txt", "dot.png"):
        batch.add_job(id=name, prompt=f"What is in {name}?", file=folder / name)
    run = batch.run()
    results = run.results()
    rows = {row["job_id"]: row for row in pq.read_table(folder / "out/data").to_pylist()}
    requests = bodies(folder / "out")
    rates = published_rates(rows["dot.png"]["_provider"], str(APIS[api]["model"]))
    assert rates is not None
    for name, result in results.items():
        row = rows[name]
        assert result.is_success()
        assert result.response == answer_text(row["_provider"], requests[row["_custom_id"]])
        assert row["_cost_usd"] == usd(rates.cost(Usage(result.input_tokens, result.output_tokens)))
    assert results["report.pdf"].input_tokens > 2 * 1_800 > results["dot.png"].input_tokens > 1_200
    assert results["poem.txt"].input_tokens < 100
    [chunk] = all_chunks()
    assert run.receipt is not None
    assert run.receipt.exit_code == 0
    assert (chunk.bound or 0) >= sum(int(row["_cost_usd"] * 10**12) for row in rows.values())


def test_each_api_has_its_own_form(folder: Path) -> None:
    """A document goes before the text of the last user turn, in the form of its endpoint."""
    turns = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    parts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in ("report.pdf", "poem.txt", "dot.png"):
        for kind, api in APIS.items():
            job = Job("a", messages=turns, file=folder / name, **cast("Any", api))
            adapter = provider_type(job.destination().provider, job.endpoint)
            body = adapter.body(adapter.__new__(adapter), job.request(None, job.document()))
            last = body[adapter.turns_param][-1]
            assert (last["role"], last["content"][1]["text"]) == ("user", "three")
            parts[kind, name] = last["content"][:1]
    encoded = {
        name: str(parts["anthropic", name][0]["source"]["data"])
        for name in ("report.pdf", "dot.png")
    }
    assert b64decode(encoded["report.pdf"]) == (folder / "report.pdf").read_bytes()
    url = {
        "report.pdf": f"data:application/pdf;base64,{encoded['report.pdf']}",
        "dot.png": f"data:image/png;base64,{encoded['dot.png']}",
    }
    text = f"poem.txt:\n\n{POEM}"
    assert {place: part for place, [part] in parts.items()} == {
        ("anthropic", "report.pdf"): {
            "type": "document",
            "source": {
                "type": "base64",
                "media_type": "application/pdf",
                "data": encoded["report.pdf"],
            },
            "title": "report.pdf",
        },
        ("anthropic", "poem.txt"): {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": POEM},
            "title": "poem.txt",
        },
        ("anthropic", "dot.png"): {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": encoded["dot.png"]},
        },
        ("openai", "report.pdf"): {
            "type": "file",
            "file": {"filename": "report.pdf", "file_data": url["report.pdf"]},
        },
        ("openai", "poem.txt"): {"type": "text", "text": text},
        ("openai", "dot.png"): {"type": "image_url", "image_url": {"url": url["dot.png"]}},
        ("responses", "report.pdf"): {
            "type": "input_file",
            "filename": "report.pdf",
            "file_data": url["report.pdf"],
        },
        ("responses", "poem.txt"): {"type": "input_text", "text": text},
        ("responses", "dot.png"): {
            "type": "input_image",
            "image_url": url["dot.png"],
            "detail": "auto",
        },
    }


def test_an_answer_cites_pages_and_places(batch: Batch, folder: Path, emulator: Emulator) -> None:
    """Citations name the document, the text and its place.

    Pages count from 1, the last one included; characters are slices.
    """
    batch.set_default_params(enable_citations=True)
    batch.add_job(id="pdf", prompt="How were sales?", file=folder / "report.pdf")
    batch.add_job(id="text", prompt="What is sweet?", file=folder / "poem.txt")
    results = batch.run().results()
    [of_pdf], [of_text] = results["pdf"].citations or [], results["text"].citations or []
    pages = ["Sales rose by a fifth.", "Costs fell."]
    assert (of_pdf["document"], of_pdf["cited_text"]) == (
        "report.pdf",
        pages[of_pdf["page_start"] - 1],
    )
    assert of_pdf["page_end"] == of_pdf["page_start"]
    assert (of_text["document"], of_text["cited_text"]) == (
        "poem.txt",
        POEM[of_text["char_start"] : of_text["char_end"]],
    )
    assert of_text["cited_text"]
    kept = {
        row["job_id"]: row["_citations"] for row in pq.read_table(folder / "out/data").to_pylist()
    }
    assert kept == {"pdf": [of_pdf], "text": [of_text]}
    again = Batch(folder / "out").set_default_params(
        model=CLAUDE, max_tokens=100, enable_citations=True
    )
    again.add_job(id="pdf", prompt="How were sales?", file=folder / "report.pdf")
    assert again.run().results() == {"pdf": results["pdf"]}
    assert sent(emulator) == 2


def test_without_citations_there_are_none(batch: Batch, folder: Path) -> None:
    """A result has a list of citations only if its job asked for them."""
    batch.add_job(id="a", prompt="How were sales?", file=folder / "report.pdf").add_job(
        id="b", prompt="plain"
    )
    assert [result.citations for result in batch.run().results().values()] == [None, None]


def test_only_another_content_is_another_question(
    batch: Batch, folder: Path, emulator: Emulator
) -> None:
    """A file that was moved is not sent again; one whose content changed is."""
    batch.add_job(id="a", prompt="p", file=folder / "poem.txt").run()
    moved = (folder / "poem.txt").rename(folder / "verses.txt")
    later = (
        Batch(folder / "out")
        .set_default_params(model=CLAUDE, max_tokens=100)
        .add_job(id="a", prompt="p", file=moved)
    )
    before = later.run().results()["a"]
    assert sent(emulator) == 1
    moved.write_text(POEM + " And so are you.")
    now = later.run().results()["a"]
    assert sent(emulator) == 2
    assert before.response != now.response


def test_a_program_may_go_elsewhere(
    batch: Batch, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is relative to the folder in which its job was added.

    Jobs without an id are named by the content of their files.
    """
    monkeypatch.chdir(folder)
    (folder / "copy.txt").write_text(POEM)
    batch.add_job(prompt="p", file="poem.txt").add_job(prompt="p", file="copy.txt").add_job(
        prompt="p", file="dot.png"
    )
    monkeypatch.chdir(folder.parent)
    assert all(result.is_success() for result in batch.run().results().values())
    first, second, third = (job.id for job in batch.jobs)
    assert (second, third[:-5] == first[:-5]) == (f"{first}-2", False)


@pytest.mark.parametrize("api", APIS)
def test_a_limit_holds_documents(batch: Batch, folder: Path, api: str) -> None:
    """A run spends no more than its limit on documents, and uses it.

    What one document did not need goes to the next.
    """
    batch.set_default_params(**cast("Any", APIS[api]))
    rates = published_rates(
        "anthropic" if api == "anthropic" else "openai", str(APIS[api]["model"])
    )
    assert rates is not None
    for number in range(12):
        batch.add_job(id=str(number), prompt=f"What is {number}?", file=folder / "report.pdf")
    # of less than three documents, as they are bounded
    limit = usd(rates.bound(60_000, 600, cache_writes=api != "anthropic"))
    run = batch.add_cost_limit(float(limit)).run()
    rows = pq.read_table(folder / "out/data").to_pylist()
    spent = sum(row["_cost_usd"] for row in rows)
    landed = [row for row in rows if row["_status"] == "succeeded"]
    one = usd(rates.bound(20_500, 100, cache_writes=api != "anthropic"))
    assert run.receipt is not None
    assert spent <= limit
    assert len(landed) > 3
    assert len(landed) == 12 or spent > limit - one


@pytest.mark.parametrize("fault", ["request_truncated", "request_invalid_answer", "request_error"])
@pytest.mark.parametrize("api", APIS)
def test_another_attempt_has_the_document_too(
    batch: Batch, folder: Path, emulator: Emulator, api: str, fault: str
) -> None:
    """A row of a later round is sent with its document, bounded as before."""
    emulator.control.faults(kind=fault, contains="What", times=1)
    batch.set_default_params(**cast("Any", APIS[api]), response_model=Answer).add_cost_limit(1)
    run = batch.add_job(id="a", prompt="What is it?", file=folder / "report.pdf").run()
    assert run.receipt is not None
    assert (run.receipt.rounds, run.results()["a"].is_success()) == (2, True)
    assert [b"JVBERi" in orjson.dumps(body) for body in bodies(folder / "out").values()] == [
        True,
        True,
    ]
    first, second = (chunk.bound or 0 for chunk in all_chunks())
    assert first <= second <= 2 * first


def test_a_citation_that_is_wrong_does_not_cost_the_answer(
    emulator: Emulator, tmp_path: Path
) -> None:
    """With any content of a citation, the answer is read; what is invalid is left out."""
    del emulator
    odd: list[Any] = [
        {
            "type": "page_location",
            "cited_text": "x",
            "document_title": "d",
            "start_page_number": 2,
            "end_page_number": 4,
        },
        {
            "cited_text": 5,
            "document_title": ["d"],
            "start_page_number": "2",
            "end_page_number": 0,
            "start_char_index": -1,
            "end_char_index": 2**60,
        },
        None,
        "text",
        {},
    ]
    content = [
        {"type": "text", "text": "yes", "citations": odd},
        {"type": "text", "text": "!", "citations": None},
    ]
    message = {
        "content": content,
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
        "model": CLAUDE,
    }
    path = tmp_path / "results.jsonl"
    path.write_bytes(
        orjson.dumps({"custom_id": "a", "result": {"type": "succeeded", "message": message}})
        + b"\n"
    )
    [answer] = AnthropicProvider().answers(path)
    assert (answer.text, answer.outcome, answer.readable) == ("yes!", Outcome.SUCCEEDED, True)
    nothing = dict.fromkeys(
        ("cited_text", "document", "page_start", "page_end", "char_start", "char_end")
    )
    assert answer.citations == (
        {**nothing, "cited_text": "x", "document": "d", "page_start": 2, "page_end": 3},
        nothing,
    )


def test_results_need_no_files(batch: Batch, folder: Path) -> None:
    """The results of a run can be read when its documents are gone."""
    run = batch.add_job(id="a", prompt="p", file=folder / "poem.txt").run()
    (folder / "poem.txt").unlink()
    assert run.results()["a"].is_success()


def test_a_dry_run_estimates_by_pages(batch: Batch, folder: Path, emulator: Emulator) -> None:
    """A plan's figures follow the pages of a document, not the bytes of its encoding."""
    large = folder / "large.pdf"
    large.write_bytes(pdf("Sales rose.") + b"%" * 3_000_000)
    run = batch.add_job(id="a", prompt="p", file=large).run(dry_run=True)
    assert run.plan is not None
    assert sent(emulator) == 0
    assert 2_500 <= run.plan.summary.input_tokens <= 2_600
    rates = published_rates("anthropic", CLAUDE)
    assert rates is not None
    assert (
        rates.cost(Usage(10_000, 100))
        <= (run.plan.summary.bound or 0)
        <= rates.cost(Usage(10_400, 100))
    )


def test_documents_go_with_what_works_by_itself(emulator: Emulator, folder: Path) -> None:
    """A provider by itself sends, prices and estimates documents, and reads citations."""
    del emulator
    provider = AnthropicProvider()
    jobs = [
        Job(
            name,
            CLAUDE,
            prompt="p",
            file=folder / f"{name}.{kind}",
            max_tokens=100,
            enable_citations=kind != "png",
        )
        for name, kind in (("report", "pdf"), ("poem", "txt"), ("dot", "png"))
    ]
    assert 0 < provider.estimate_cost(jobs) < 0.05
    results = {
        result.job_id: result for result in provider.get_batch_results(provider.create_batch(jobs))
    }
    assert all(result.is_success() and result.cost_usd > 0 for result in results.values())
    assert [len(results[name].citations or []) for name in ("report", "poem", "dot")] == [1, 1, 0]
    assert results["dot"].citations is None


class Answer(BaseModel):
    """A response model."""

    word: str


REFUSED: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "missing": ("", b"", {}, "cannot be read (No such file or directory); check the path."),
    "empty": (
        "a.txt",
        b"",
        {},
        "is empty; give a PDF, a picture (PNG, JPEG, GIF, WebP) or a text in UTF-8.",
    ),
    "a program": (
        "a.docx",
        b"PK\x03\x04\0\0",
        {},
        "is not a document that can be sent; give a PDF, a picture",
    ),
    "a page for a PDF": (
        "a.pdf",
        b"<html>not found</html>",
        {},
        "is not what its name says, but text/plain; fix the file, or rename it.",
    ),
    "a broken PDF": ("a.pdf", b"%PDF-1.4\nand no more", {}, "cannot be read as a PDF"),
    "citations without a file": (
        "-",
        b"",
        {"enable_citations": True},
        "enable_citations: there is nothing to cite; give the job a file",
    ),
    "citations of OpenAI": (
        "a.txt",
        b"text",
        {"enable_citations": True, "model": GPT},
        "the openai API cites no documents",
    ),
    "citations of a picture": (
        "a.png",
        PIXEL,
        {"enable_citations": True},
        "is a picture, of which nothing can be cited",
    ),
    "citations of pages that are pictures": (
        "a.pdf",
        pdf("", ""),
        {"enable_citations": True},
        "has no text that could be cited, only pictures; recognize its text first, or remove",
    ),
    "no path": ("", b"", {"file": 5}, "file: 5 is no path; write a text or a Path."),
    "a name that cannot be told": (
        "",
        b"",
        {"file": "caf\udce9.pdf"},
        "is no valid path; write a Path of Unicode",
    ),
    "a name that cannot be": ("", b"", {"file": "a\0.pdf"}, "is no valid path"),
    "a locked PDF": ("a.pdf", locked(), {}, "is protected by a password; save it without one."),
    "a PDF without pages": ("a.pdf", pdf(), {}, "has no pages; check it."),
    "a PDF that goes in circles": (
        "a.pdf",
        pdf("one").replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"),
        {},
        "cannot be read as a PDF",
    ),
    "a folder": ("", b"", {"file": "."}, "is not a file of at most 100,000,000 bytes"),
    "too large": (
        "a.txt",
        b"a" * 23_000_001,
        {},
        "has 23,000,001 bytes, and a request can carry 23,000,000; split it.",
    ),
    "too long": (
        "a.pdf",
        pdf(*["page"] * 601),
        {},
        "has 601 pages, and a request can carry 600; split it.",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_be_sent_is_refused_at_once(
    batch: Batch, folder: Path, kind: str
) -> None:
    """The sentence names the job, the field and the remedy."""
    name, content, more, wrong = REFUSED[kind]
    path = folder / (name or "nowhere.txt")
    if name and name != "-":
        path.write_bytes(content)
    with pytest.raises(SpecError) as told:
        batch.add_job(**{"id": "a", "prompt": "p", "file": None if name == "-" else path, **more})
    assert str(told.value).startswith("job 'a': " if more.get("file") != 5 else "file: 5")
    assert wrong in str(told.value)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_a_job_sends_what_a_text_says(batch: Batch, folder: Path, api: str, encoding: str) -> None:
    """Whatever its encoding is, the request has the decoded text; it is not sent twice."""
    (folder / "note.txt").write_bytes("déjà vu".encode(encoding))
    batch.set_default_params(**cast("Any", APIS[api]))
    batch.add_job(id="a", prompt="What is it?", file=folder / "note.txt")
    assert batch.run().results()["a"].is_success()
    [body] = bodies(folder / "out").values()
    text = orjson.dumps(body).decode()
    assert 'déjà vu"' in text
    assert "\ufeff" not in text
    assert [*batch.run().results()] == ["a"]
    assert len(bodies(folder / "out")) == 1


def test_pages_without_text_of_jobs_are_told(
    batch: Batch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan says of how many pages nothing can be cited, and which; jobs are sent all the same."""
    (folder / "scan.pdf").write_bytes(scanned(None, "Appendix", None, None))
    for name in ("scan.pdf", "report.pdf"):
        batch.add_job(id=name, prompt="?", file=folder / name, enable_citations=True)
    batch.run(dry_run=True)
    told = (
        "3 pages have no text that could be cited, in documents of 1 row, such as pages 1, 3, 4 of"
    )
    assert told in " ".join(capsys.readouterr().out.split())
    assert all(one.is_success() for one in batch.run().results().values())


def test_a_text_about_pdfs_is_a_text(folder: Path) -> None:
    """What begins like a PDF is one, and a page that mentions the mark is not."""
    (folder / "a.md").write_text("Files begin with %PDF-1.4.")
    (folder / "b.pdf").write_bytes(b"junk before\n" + pdf("one"))
    (folder / "c").write_bytes(pdf("one", "two"))
    assert [
        (read(folder / name).kind, read(folder / name).pages) for name in ("a.md", "b.pdf", "c")
    ] == [("text", 0), ("pdf", 1), ("pdf", 2)]


def test_models_with_dear_pictures_are_held_dearer(folder: Path) -> None:
    """The bound of a page and a picture is that of its model."""
    page, picture = read(folder / "report.pdf"), read(folder / "dot.png")
    bounds = [
        (adapter.document_tokens(model))
        for adapter, model in (
            (AnthropicProvider, CLAUDE),
            (OpenAIProvider, GPT),
            (OpenAIProvider, "gpt-4o-mini"),
        )
    ]
    assert [page.token_bound(*bound) + len(page.base64) for bound in bounds] == [
        20_000,
        20_000,
        120_000,
    ]
    assert [picture.token_bound(*bound) + len(picture.base64) for bound in bounds] == [
        6_000,
        12_000,
        50_000,
    ]


def test_a_third_provider_takes_none_unless_it_says_so(
    batch: Batch, folder: Path, house: str
) -> None:
    """An adapter that does not declare documents never gets one."""
    with pytest.raises(
        SpecError, match="the house API takes no documents; put the text into the prompt"
    ):
        batch.add_job(prompt="p", model=house, file=folder / "poem.txt")


def test_a_document_that_changes_meanwhile_is_not_sent(
    batch: Batch, folder: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planned documents are those that are sent.

    A file that is rewritten in between stops the run in one sentence.
    """
    batch.add_job(id="a", prompt="p", file=folder / "poem.txt")
    enter = PlanWriter.__enter__

    def rewrite(self: PlanWriter) -> PlanWriter:
        (folder / "poem.txt").write_text("Another one.")
        return enter(self)

    monkeypatch.setattr(PlanWriter, "__enter__", rewrite)
    with pytest.raises(SpecError, match=r"poem\.txt has changed since the job was added; run "):
        batch.run()
    assert sent(emulator) == 0
    monkeypatch.undo()


def test_all_documents_that_changed_are_told_at_once(
    batch: Batch, folder: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its job, if several are not what they were as their jobs were added."""
    names = ("report.pdf", "poem.txt", "dot.png")
    for name in names:
        batch.add_job(id=name, prompt="p", file=folder / name)
    enter = PlanWriter.__enter__

    def rewrite(self: PlanWriter) -> PlanWriter:
        (folder / "poem.txt").write_text("Another one.")
        (folder / "report.pdf").unlink(missing_ok=True)
        return enter(self)

    monkeypatch.setattr(PlanWriter, "__enter__", rewrite)
    with pytest.raises(SpecError) as told:
        batch.run()
    monkeypatch.undo()
    head, *lines = str(told.value).splitlines()
    assert head == "2 rows have a document that cannot be sent; mend them:"
    assert lines[0].startswith("  job 'report.pdf': file: ")
    assert lines[1].startswith("  job 'poem.txt': file: ")
    assert sent(emulator) == 0


def test_jobs_with_files_travel_as_json(folder: Path) -> None:
    """A job with a file is the same job after a round trip."""
    job = Job("a", CLAUDE, prompt="p", file=folder / "poem.txt", enable_citations=True)
    assert Job.from_dict(job.to_dict()) == job
