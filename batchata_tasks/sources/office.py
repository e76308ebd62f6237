"""Word, Excel and PowerPoint documents as texts in Markdown, which are what is sent of them.

They are archives of XML, which may come from anybody. What is not needed of one is never read, what
is read has a bound, and no entity is ever resolved.
"""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
import zlib
from contextlib import closing, contextmanager
from datetime import date, datetime, time
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, Any
from xml.parsers.expat import ExpatError

from batchata_tasks.common.errors import SpecError
from batchata_tasks.common.text import is_unicode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

ZIP_MARK = b"PK\x03\x04"
OLD_MARK = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""With which files of Office before 2007 begin, and newer ones under a password."""
_OF_OPEN_XML = "application/vnd.openxmlformats-officedocument"
DOCX = f"{_OF_OPEN_XML}.wordprocessingml.document"
XLSX = f"{_OF_OPEN_XML}.spreadsheetml.sheet"
PPTX = f"{_OF_OPEN_XML}.presentationml.presentation"
_PARTS = {"word/document.xml": DOCX, "xl/workbook.xml": XLSX, "ppt/presentation.xml": PPTX}
_MOST_MEMBERS = 20_000
_MOST_LISTED = 4_000_000  # bytes of the list of an archive's members
_MOST_BYTES = 20_000_000  # of XML, unpacked
_SMALL, _MOST_TIMES = 2_000_000, 150  # XML of somebody's own packs to a twentieth of its bytes
# tags and attributes, of which readers make objects, that of Word the slowest ones
_MOST_MARKS = {DOCX: 1_000_000, XLSX: 3_000_000, PPTX: 2_000_000}
_MOST_CHARS = 50_000_000  # of the text that comes of it: more than any request carries
_MOST_ROWS = 2_000_000  # of sheets, empty ones included
_BLOCK = 1 << 20
_XML = (".xml", ".rels")
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x07"  # of the list of members
_NOTES = {"word/footnotes.xml": b"footnoteReference", "word/endnotes.xml": b"endnoteReference"}
_SPANS = re.compile(r'(?:col|row)span="(\d{1,9})')
_MOST_SPANNED = 200_000  # columns and rows that cells of a document take, each written out
_BLANK_LINES = re.compile(r"\n{3,}")
# what readers raise for archives and XML that are not quite what they should be
_ODD_FILE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ExpatError),
    *(LookupError, ValueError, AttributeError, TypeError, ArithmeticError, RuntimeError),
    *(AssertionError, MemoryError, OSError, SyntaxError),  # as which readers tell broken XML
)


def kind_of(data: bytes) -> str | None:
    """Return the media type of an Office document; None of other archives, and broken ones."""
    try:
        with _opened(data) as archive:
            names = set(archive.namelist())
    except (*_ODD_FILE, _TooLargeError):
        return None
    return next((kind for part, kind in _PARTS.items() if part in names), None)


class _TooLargeError(Exception):
    """A document has more in it than one that somebody wrote."""


def _opened(data: bytes) -> zipfile.ZipFile:
    """Open an archive; of one with a long list of members, not even that is read."""
    end = data.rfind(_END)
    listed = int.from_bytes(data[end + 12 : end + 16], "little") if end >= 0 else 0
    if listed > _MOST_LISTED or data[max(end - 20, 0) : end].startswith(_END_64):
        raise _TooLargeError
    return zipfile.ZipFile(BytesIO(data))


def markdown_of(data: bytes, kind: str, name: str) -> str:
    """Return what an Office document says, as Markdown; `name` is its file, for people.

    Raises:
        SpecError: it cannot be read, says nothing, or what reads it is not installed.
    """
    with _readable(name):
        text = _CONVERTERS[kind](_harmless(data, _MOST_MARKS[kind]))
    text = _BLANK_LINES.sub("\n\n", text).replace("\0", "").strip()
    if not any(char.isalnum() for char in text) or not is_unicode(text):
        message = f"file: {name} has no text that can be sent; save it as a PDF."
        raise SpecError(message)
    return f"{text}\n"


@contextmanager
def _readable(name: str) -> Generator[None, None, None]:
    try:
        yield
    except ImportError as error:
        message = (
            f"file: {name} is an Office document; run `pip install 'batchata-flows[office]'` to "
            "send such files, or save it as a PDF."
        )
        raise SpecError(message) from error
    except _TooLargeError as error:
        message = f"file: {name} has more in it than can be read; split it, or save it as a PDF."
        raise SpecError(message) from error
    except _ODD_FILE as error:
        message = (
            f"file: {name} cannot be read as an Office document ({type(error).__name__}); save it "
            "anew, or as a PDF."
        )
        raise SpecError(message) from error


def _harmless(data: bytes, marks: int) -> bytes:
    """Return an archive of the same parts, without compression: XML as it is, all else empty.

    Raises:
        _TooLargeError: it has more than a document needs.
        ValueError: it has XML with entities of its own, or in an encoding that Office never writes.
    """
    left, contents = min(_MOST_BYTES, max(_SMALL, _MOST_TIMES * len(data))), dict[str, bytes]()
    with _opened(data) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise _TooLargeError
        for member in members:
            is_xml = member.filename.lower().endswith(_XML)
            content = _unpacked(archive, member, left) if is_xml else b""
            left, marks = left - len(content), marks - content.count(b"<") - content.count(b"=")
            if marks < 0:
                raise _TooLargeError
            if b"\0" in content or b"<!DOCTYPE" in content:
                message = "XML of another kind"
                raise ValueError(message)
            contents[member.filename] = content
    document = contents.get("word/document.xml", b"")
    for part, reference in _NOTES.items():  # each reference may show any note anew
        if document.count(reference) * len(contents.get(part, b"")) > 10 * _MOST_CHARS:
            raise _TooLargeError
    copy = BytesIO()
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as target:
        for name, content in contents.items():
            target.writestr(zipfile.ZipInfo(name), content)
    return copy.getvalue()


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    content = bytearray()
    with archive.open(member) as stream:
        while block := stream.read(_BLOCK):
            content += block
            if len(content) > most:
                raise _TooLargeError
    return bytes(content)


def _joined(parts: Iterable[str], joint: str = "\n\n") -> str:
    """Return the parts of a text that are not empty, as one, within the bound."""
    kept, left = list[str](), _MOST_CHARS
    for part in parts:
        if part:
            kept.append(part)
            left -= len(part)
        if left < 0:
            raise _TooLargeError
    return joint.join(kept)


def _of_word(data: bytes) -> str:
    import mammoth  # noqa: PLC0415 - it may not be installed
    from markdownify import markdownify  # noqa: PLC0415 - as above

    html = mammoth.convert_to_html(
        BytesIO(data),
        convert_image=mammoth.images.img_element(lambda _picture: {}),
        include_embedded_style_map=False,
        external_file_access=False,
    ).value
    if sum(map(int, _SPANS.findall(html))) > _MOST_SPANNED or len(html) > _MOST_CHARS:
        raise _TooLargeError
    # a text that is to be quoted word for word has no marks inside of words
    plain = dict.fromkeys(("escape_asterisks", "escape_underscores", "escape_misc"), False)
    stripped = ["img", "strong", "em", "b", "i"]
    return markdownify(
        html, heading_style="ATX", bullets="-", strip=stripped, table_infer_header=True, **plain
    )


def _of_excel(data: bytes) -> str:
    import openpyxl  # noqa: PLC0415 - it may not be installed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what of a workbook is not read
        book = openpyxl.load_workbook(
            BytesIO(data), read_only=True, data_only=True, keep_links=False
        )
        with closing(book):
            return _joined(_sheets(book))


def _sheets(book: Any) -> Iterator[str]:
    rows = count()
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # which may be anything
        if table := _table(_counted(sheet.iter_rows(values_only=True), rows)):
            yield f"## {_line(sheet.title)}\n\n{table}"


def _counted(rows: Iterable[Iterable[object]], number: Iterator[int]) -> Iterator[list[str]]:
    """Yield the cells of rows as texts; no more rows than somebody filled."""
    left = _MOST_CHARS
    for row in rows:
        cells = list(map(_cell, row))
        left -= sum(map(len, cells)) + 3 * len(cells)
        if next(number) > _MOST_ROWS or left < 0:
            raise _TooLargeError
        yield cells


def _of_powerpoint(data: bytes) -> str:
    import pptx  # noqa: PLC0415 - it may not be installed
    from lxml.etree import LxmlError  # noqa: PLC0415 - as above
    from pptx.exc import PythonPptxError  # noqa: PLC0415 - as above

    try:
        return _joined(_slides(pptx.Presentation(BytesIO(data))))
    except (LxmlError, PythonPptxError) as error:
        raise ValueError(str(error)) from error


def _slides(presentation: Any) -> Iterator[str]:
    for number, slide in enumerate(presentation.slides, 1):
        yield f"## Slide {number}"
        yield from _slide(slide)


def _slide(slide: Any) -> Iterator[str]:
    """Yield what a slide says, part by part, its notes last."""
    title = slide.shapes.title
    if title is not None and (text := _line(title.text_frame.text)):
        yield f"### {text}"
    for shape in slide.shapes:
        if title is None or shape.shape_id != title.shape_id:
            yield from _shape(shape)
    if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None:
        yield from (f"Notes: {text}" for text in [frame.text.strip()] if text)


def _shape(shape: Any) -> Iterator[str]:
    if hasattr(shape, "shapes"):  # a group
        for inner in shape.shapes:
            yield from _shape(inner)
    elif shape.has_text_frame:
        lines = [
            f"{'  ' * paragraph.level}- {text}"
            for paragraph in shape.text_frame.paragraphs
            if (text := _line(paragraph.text))
        ]
        yield from ["\n".join(lines)] if lines else []
    elif getattr(shape, "has_table", False):
        yield _table([[_cell(cell.text) for cell in row.cells] for row in shape.table.rows])


def _table(rows: Iterable[list[str]]) -> str:
    """Return rows of cells as a table, the first one as its header; empty rows are left out."""
    lines = [line for line in rows if any(line)]
    if not lines:
        return ""
    width = max(map(len, lines))
    if width * len(lines) > _MOST_CHARS:
        raise _TooLargeError
    written = [f"| {' | '.join(line + [''] * (width - len(line)))} |" for line in lines]
    return "\n".join([written[0], f"|{' --- |' * width}", *written[1:]])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    if isinstance(value, datetime) and value.time() == time():
        value = value.date()
    if isinstance(value, date | time):
        return value.isoformat()
    return _line(str(value)).replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split())


_CONVERTERS: dict[str, Callable[[bytes], str]] = {
    DOCX: _of_word,
    XLSX: _of_excel,
    PPTX: _of_powerpoint,
}
