"""Office documents: what they say is sent as Markdown, and what is wrong with them harms nobody."""

from __future__ import annotations

import sys
import zipfile
from contextlib import suppress
from datetime import date
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchata_tasks.common.errors import SpecError
from batchata_tasks.sources import office
from batchata_tasks.sources.documents import media_type_of, of_content
from tests.support.office import archive, docx, paragraph, slides, word, xlsx

WORD = docx(
    "invoice_no: 2026-0417", "Grand *total*: 29.16", table=[["Item", "Price"], ["Pen", "1"]]
)
EXCEL = xlsx(
    {
        "Sales": [["Year", "To|tal"], [2025, 29.16], [date(2025, 3, 1), 3.0], [], ["é", None]],
        "Empty": [],
    }
)
POINT = slides(("Results", "Total: 29.16\nCosts fell"), ("Next", "More"), table=[["a"], ["b"]])
SEEDS = {"a.docx": WORD, "a.xlsx": EXCEL, "a.pptx": POINT}
KINDS = {"a.docx": office.DOCX, "a.xlsx": office.XLSX, "a.pptx": office.PPTX}
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"> '
    '<!ENTITY f SYSTEM "file:///etc/passwd">]>'
)
NOTES = '<w:footnotes xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">{}'


def test_a_word_document_is_a_text() -> None:
    """Paragraphs and tables; words stay as they are, so that they can be quoted."""
    document = of_content(WORD, "a.docx", cited=True)
    assert document.kind == "text"
    assert document.text == (
        "invoice_no: 2026-0417\n\nGrand *total*: 29.16\n\n"
        "| Item | Price |\n| --- | --- |\n| Pen | 1 |\n"
    )
    assert document.text == of_content(WORD, "b.docx").text


def test_a_workbook_is_a_text() -> None:
    """Each sheet that has cells is a table, its values as Excel has them."""
    assert of_content(EXCEL, "a.xlsx").text == (
        "## Sales\n\n| Year | To\\|tal |\n| --- | --- |\n| 2025 | 29.16 |\n| 2025-03-01 | 3 |\n"
        "| é |  |\n"
    )


def test_a_presentation_is_a_text() -> None:
    """Slide by slide: title, points and tables."""
    assert of_content(POINT, "a.pptx").text == (
        "## Slide 1\n\n### Results\n\n- Total: 29.16\n- Costs fell\n\n"
        "## Slide 2\n\n### Next\n\n- More\n\n| a |\n| --- |\n| b |\n"
    )


@pytest.mark.parametrize("name", SEEDS)
def test_the_file_is_what_counts(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its digest is that of the file, whatever a later reader makes of it; its kind is told."""
    path = tmp_path_factory.mktemp("a") / name
    path.write_bytes(SEEDS[name])
    assert media_type_of(path) == KINDS[name]
    assert of_content(SEEDS[name], name).sha256 != of_content(b"x", name[:1]).sha256
    with pytest.raises(SpecError, match="is not what its name says"):
        of_content(SEEDS[name], "a.pdf")


BAD: dict[str, tuple[bytes, str]] = {
    "an archive": (archive({"a.txt": "x"}), "is an archive, and no Word, Excel or PowerPoint"),
    "an old one": (office.OLD_MARK + bytes(600), "is an Office document of the old kind, or under"),
    "cut": (WORD[:-40], "is not a document that can be sent"),
    "no text": (word(""), "has no text that can be sent; save it as a PDF"),
    "entities": (word(paragraph("x"), head=LAUGHS), "cannot be read as an Office document"),
    "entities elsewhere": (
        word(paragraph("x"), {"word/styles.xml": LAUGHS}),
        "cannot be read as an Office document",
    ),
    "in two bytes": (
        archive({"word/document.xml": LAUGHS.encode("utf-16")}),
        "cannot be read as an Office document",
    ),
    "no XML": (archive({"word/document.xml": "<w"}), "cannot be read as an Office document"),
    "a bomb": (
        word(paragraph("x"), {"word/styles.xml": b" " * 30_000_000}),
        "has more in it than can be read; split it",
    ),
    "many tags": (word("<w:p/>" * 1_000_100), "has more in it than can be read"),
    "packed too well": (word("<w:p/>" * 350_000), "has more in it than can be read"),
    "many members": (
        word(paragraph("x"), {f"{n}": "" for n in range(20_001)}),
        "has more in it than can be read",
    ),
    "notes of notes": (
        word(
            '<w:p><w:r><w:footnoteReference w:id="1"/></w:r></w:p>' * 10_000,
            {"word/footnotes.xml": NOTES.format("x" * 60_000)},
        ),
        "has more in it than can be read",
    ),
    "deep": (word("<w:p>" * 50_000 + "</w:p>" * 50_000), "cannot be read as an Office document"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_document_is_told(kind: str) -> None:
    """In one sentence, before more of it is read than a document needs."""
    content, problem = BAD[kind]
    with pytest.raises(SpecError) as told:
        of_content(content, "a.docx")
    assert str(told.value).startswith(f"file: a.docx {problem}")
    assert "\n" not in str(told.value)


def test_pictures_are_never_unpacked() -> None:
    """However large they are: nothing of them is sent."""
    big = {"word/media/image1.png": b"\0" * 60_000_000}
    assert of_content(word(paragraph("Total: 5"), big), "a.docx").text == "Total: 5\n"


@pytest.mark.parametrize(
    "cell", ['<c r="XFD1048576"><v>1</v></c>', '<c r="A1048576"><v>1</v></c><c r="XFD1048576"/>']
)
def test_a_sheet_of_all_cells_is_read_by_those_it_has(cell: str) -> None:
    """A cell at the far end does not make a table of all cells before it."""
    stream = BytesIO()
    with zipfile.ZipFile(BytesIO(EXCEL)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            content = old.read(name).decode()
            if name == "xl/worksheets/sheet1.xml":
                content = content.replace("</sheetData>", f"<row>{cell}</row></sheetData>")
            new.writestr(name, content)
    with suppress(SpecError):
        assert len(of_content(stream.getvalue(), "a.xlsx").text) < 1_000_000


@pytest.mark.parametrize("name", SEEDS)
def test_without_the_extra_it_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install, or to do instead."""
    for module in ("mammoth", "openpyxl", "pptx"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SpecError) as told:
        of_content(SEEDS[name], name)
    assert str(told.value) == (
        f"file: {name} is an Office document; run `pip install 'batchata-flows[office]'` to send "
        "such files, or save it as a PDF."
    )


def test_cells_that_span_more_than_a_page_are_told() -> None:
    """A cell of a few bytes may say that it has millions of columns, which would be written out."""
    cell = (
        '<w:tc><w:tcPr><w:gridSpan w:val="1000"/></w:tcPr><w:p><w:r><w:t>x</w:t></w:r></w:p></w:tc>'
    )
    row = f"<w:tr>{cell * 10}</w:tr>"
    with pytest.raises(SpecError, match="has more in it than can be read"):
        of_content(word(f"<w:tbl>{row * 100}</w:tbl>"), "wide.docx")
    assert "x" in of_content(word(f"<w:tbl>{row}</w:tbl>"), "wide.docx").text


PIECES = [b"", b"\0", b"\xff", b"<", b">", b'"', b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x07"]
EDITS = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 30), st.sampled_from(PIECES))


@given(st.sampled_from(sorted(SEEDS)), st.lists(EDITS, min_size=1, max_size=6))
def test_a_damaged_archive_is_told_or_taken(
    name: str, edits: list[tuple[float, int, bytes]]
) -> None:
    """Whatever bytes are lost, doubled or changed, nothing but a sentence comes of it."""
    content = bytearray(SEEDS[name])
    for where, lost, piece in edits:
        place = int(where * len(content))
        content[place : place + lost] = piece
    with suppress(SpecError):
        assert of_content(bytes(content), name).text


@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_damaged_xml_is_told_or_taken(name: str, data: st.DataObject) -> None:
    """In an archive that is whole, any part may say anything."""
    stream = BytesIO()
    with zipfile.ZipFile(BytesIO(SEEDS[name])) as old, zipfile.ZipFile(stream, "w") as new:
        names = [one for one in old.namelist() if one.endswith((".xml", ".rels"))]
        damaged = data.draw(st.sampled_from(names))
        for one in old.namelist():
            content = bytearray(old.read(one))
            if one == damaged:
                for where, lost, piece in data.draw(st.lists(EDITS, min_size=1, max_size=4)):
                    place = int(where * len(content))
                    content[place : place + lost] = piece
            new.writestr(one, bytes(content))
    with suppress(SpecError):
        assert of_content(stream.getvalue(), name).text
