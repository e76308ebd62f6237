"""Workbooks as Excel writes them, as small as they can be."""

from __future__ import annotations

import zipfile
from datetime import date, datetime
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_DATE, _MOMENT = 1, 2  # styles


class ErrorCell(str):
    """A cell with an error, such as #N/A."""

    __slots__ = ()


def write_workbook(
    path: Path, sheets: Mapping[str, Iterable[Sequence[object]]], first_row: int = 1
) -> None:
    """Write sheets of rows; the first of them is row `first_row` of its sheet. None is no cell."""
    names = list(sheets)
    listed = "".join(
        f'<sheet name="{escape(name)}" sheetId="{i}" r:id="r{i}"/>'
        for i, name in enumerate(names, 1)
    )
    links = "".join(
        f'<Relationship Id="r{i}" Type="{_OFFICE}/worksheet" Target="worksheets/s{i}.xml"/>'
        for i in range(1, len(names) + 1)
    )
    links += f'<Relationship Id="st" Type="{_OFFICE}/styles" Target="styles.xml"/>'
    parts = "".join(
        f'<Override PartName="/xl/worksheets/s{i}.xml" ContentType="{_SHEET}.worksheet+xml"/>'
        for i in range(1, len(names) + 1)
    )
    parts += f'<Override PartName="/xl/workbook.xml" ContentType="{_SHEET}.sheet.main+xml"/>'
    parts += f'<Override PartName="/xl/styles.xml" ContentType="{_SHEET}.styles+xml"/>'
    top = f'<Relationship Id="b" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/>'
    styles = "".join(f'<xf numFmtId="{number}"/>' for number in (0, 14, 22))
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{_TYPES}"><Default Extension="rels" ContentType="application/xml"/>'
            f"{parts}</Types>",
        )
        book.writestr("_rels/.rels", f'<Relationships xmlns="{_PACKAGE}">{top}</Relationships>')
        book.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>',
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{_PACKAGE}">{links}</Relationships>',
        )
        book.writestr(
            "xl/styles.xml", f'<styleSheet xmlns="{_MAIN}"><cellXfs>{styles}</cellXfs></styleSheet>'
        )
        for i, name in enumerate(names, 1):
            rows = "".join(
                f'<row r="{number}">{_cells(row, number)}</row>'
                for number, row in enumerate(sheets[name], first_row)
            )
            book.writestr(
                f"xl/worksheets/s{i}.xml",
                f'<worksheet xmlns="{_MAIN}"><sheetData>{rows}</sheetData></worksheet>',
            )


def _cells(row: Sequence[object], number: int) -> str:
    return "".join(
        _cell(value, f"{chr(ord('A') + place)}{number}")
        for place, value in enumerate(row)
        if value is not None
    )


def _cell(value: object, at: str) -> str:
    match value:
        case bool():
            return f'<c r="{at}" t="b"><v>{int(value)}</v></c>'
        case ErrorCell():
            return f'<c r="{at}" t="e"><v>{value}</v></c>'
        case int() | float():
            return f'<c r="{at}"><v>{value!r}</v></c>'
        case date():  # days since 1899-12-30
            is_moment = isinstance(value, datetime)
            moment = value if isinstance(value, datetime) else datetime(*value.timetuple()[:3])  # noqa: DTZ001
            days = (moment - datetime(1899, 12, 30)).total_seconds() / 86_400  # noqa: DTZ001
            return f'<c r="{at}" s="{_MOMENT if is_moment else _DATE}"><v>{days!r}</v></c>'
        case _:
            return f'<c r="{at}" t="inlineStr"><is><t>{escape(str(value))}</t></is></c>'
