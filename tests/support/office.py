"""Office documents, made as small as they can be."""

from __future__ import annotations

import zipfile
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import openpyxl
import pptx
from pptx.util import Inches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAIN = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/word/document.xml" ContentType="{_MAIN}"/></Types>'
)
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    f'<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="word/document.xml"/>'
    "</Relationships>"
)
_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def archive(members: Mapping[str, str | bytes]) -> bytes:
    """Return a zip archive."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def word(body: str, more: Mapping[str, str | bytes] | None = None, *, head: str = "") -> bytes:
    """Return a DOCX whose body is this XML, with `head` before it, and further members."""
    document = f"{head}<w:document {_W}><w:body>{body}</w:body></w:document>"
    parts = {"[Content_Types].xml": _TYPES, "_rels/.rels": _RELATIONS}
    return archive({**parts, "word/document.xml": document, **(more or {})})


def paragraph(text: str, style: str = "") -> str:
    """Return a paragraph of a DOCX."""
    named = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{named}<w:r><w:t>{escape(text)}</w:t></w:r></w:p>"


def docx(*texts: str, table: Sequence[Sequence[str]] = ()) -> bytes:
    """Return a DOCX of paragraphs, and a table after them."""
    rows = "".join(
        f"<w:tr>{''.join(f'<w:tc>{paragraph(cell)}</w:tc>' for cell in row)}</w:tr>"
        for row in table
    )
    return word("".join(map(paragraph, texts)) + (f"<w:tbl>{rows}</w:tbl>" if rows else ""))


def xlsx(sheets: Mapping[str, Sequence[Sequence[Any]]]) -> bytes:
    """Return a workbook."""
    book, stream = openpyxl.Workbook(), BytesIO()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    book.save(stream)
    return stream.getvalue()


def slides(*texts: tuple[str, str], table: Sequence[Sequence[str]] = ()) -> bytes:
    """Return a presentation of slides with a title and a text, and a table on the last one."""
    presentation, stream = pptx.Presentation(), BytesIO()
    for title, text in texts:
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
    if table:
        size = [Inches(1)] * 4
        shape = presentation.slides[-1].shapes.add_table(len(table), len(table[0]), *size)
        for row, cells in zip(shape.table.rows, table, strict=True):
            for cell, value in zip(row.cells, cells, strict=True):
                cell.text = value
    presentation.save(stream)
    return stream.getvalue()
