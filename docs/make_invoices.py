"""Makes the invoices in data/invoices: English and German ones, some of two pages, one a scan.

Run `python -m docs.make_invoices` in the repository's folder, with `fpdf2` installed. The senders
are made up. What it writes is the same each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from fpdf import FPDF
from PIL import Image, ImageDraw, ImageFont

INVOICES = Path(__file__).parents[1] / "data/invoices"
_ON_ONE_PAGE = 4  # items
_MADE = datetime(2026, 1, 1, tzinfo=UTC)
_ENGLISH = {
    "title": "INVOICE",
    "sender": "Sender",
    "number": "Invoice number",
    "date": "Invoice date",
    "net": "Net amount",
    "vat": "VAT",
    "total": "Total due",
    "items": ("Item", "Amount"),
    "page": "Page",
}
_GERMAN = {
    "title": "RECHNUNG",
    "sender": "Absender",
    "number": "Rechnungsnummer",
    "date": "Rechnungsdatum",
    "net": "Nettobetrag",
    "vat": "MwSt",
    "total": "Gesamtbetrag",
    "items": ("Posten", "Betrag"),
    "page": "Seite",
}


@dataclass(frozen=True)
class Invoice:
    """One invoice; its amounts are in euros."""

    number: str
    sender: str
    day: date
    items: dict[str, str]
    german: bool = False
    scanned: bool = False

    @property
    def net(self) -> Decimal:
        return sum((Decimal(amount) for amount in self.items.values()), Decimal(0))

    @property
    def vat(self) -> Decimal:
        return (self.net * Decimal("0.19")).quantize(Decimal("0.01"))

    def money(self, amount: Decimal) -> str:
        text = f"{amount:,.2f}"
        return f"{text.translate(str.maketrans(',.', '.,'))} EUR" if self.german else f"EUR {text}"

    def pages(self) -> list[list[str]]:
        """Return the lines of each page: after many items, the sums come on the second."""
        words = _GERMAN if self.german else _ENGLISH
        day = f"{self.day:%d.%m.%Y}" if self.german else f"{self.day:%d %B %Y}"
        head = [
            words["title"],
            "",
            f"{words['sender']}: {self.sender}",
            f"{words['number']}: {self.number}",
            f"{words['date']}: {day}",
            "",
            "{:<40}{:>20}".format(*words["items"]),
        ]
        rows = [f"{what:<40}{self.money(Decimal(a)):>20}" for what, a in self.items.items()]
        sums = [
            "",
            f"{words['net']}: {self.money(self.net)}",
            f"{words['vat']} 19 %: {self.money(self.vat)}",
            f"{words['total']}: {self.money(self.net + self.vat)}",
        ]
        if len(rows) <= _ON_ONE_PAGE:
            return [[*head, *rows, *sums]]
        return [[*head, *rows, "", f"{words['page']} 1"], [words["title"], *sums, "", "2"]]


ALL = [
    Invoice("2026-0117", "Weber & Sons Ltd", date(2026, 1, 9), {"Printer paper": "84.50"}),
    Invoice(
        "R-4471",
        "Bäckerei Krüger GmbH",
        date(2026, 1, 12),
        {"Brötchen": "1234.50", "Lieferung": "15.00"},
        german=True,
    ),
    Invoice(
        "INV-88",
        "Harbour Cloud Inc",
        date(2026, 1, 31),
        {f"Server {n}": f"{n * 111}.20" for n in range(1, 8)},
    ),
    Invoice(
        "20260203-1",
        "Müller Elektrotechnik",
        date(2026, 2, 3),
        {f"Position {n}": f"{n * 240}.00" for n in range(1, 7)},
        german=True,
    ),
    Invoice("7719", "Northwind Couriers", date(2026, 2, 5), {"Parcels in January": "412.75"}),
    Invoice(
        "A-2026-15", "Studio Lindqvist", date(2026, 2, 14), {"Logo": "900.00", "Cards": "75.00"}
    ),
    Invoice("RE-00092", "Stadtwerke Altdorf", date(2026, 2, 28), {"Strom": "2210.40"}, german=True),
    Invoice(
        "5530-B",
        "Fresh Harvest Catering",
        date(2026, 3, 2),
        {"Lunch for 40": "620.00", "Drinks": "118.30", "Service": "90.00"},
    ),
    Invoice("2026/3", "Schreinerei Vogt", date(2026, 3, 9), {"Regal": "1480.00"}, german=True),
    Invoice("SC-1", "Old Mill Press", date(2026, 3, 11), {"Leaflets": "55.00"}, scanned=True),
]


def main() -> None:
    """Write all of them."""
    INVOICES.mkdir(exist_ok=True)
    for number, invoice in enumerate(ALL, 1):
        pdf = FPDF(format="A4")
        pdf.set_creation_date(_MADE)
        pdf.set_font("Courier", size=11)
        for page in invoice.pages():
            pdf.add_page()
            if invoice.scanned:
                pdf.image(_picture(page), x=10, y=10, w=190)
            else:
                for line in page:
                    pdf.cell(0, 6, line, new_x="LMARGIN", new_y="NEXT")
        pdf.output(str(INVOICES / f"invoice-{number:02}.pdf"))


def _picture(lines: list[str]) -> Image.Image:
    """Return a page as a scanner sees it."""
    picture = Image.new("1", (760, 420), 1)
    draw = ImageDraw.Draw(picture)
    for place, line in enumerate(lines):
        draw.text((24, 24 + 26 * place), line, fill=0, font=ImageFont.load_default(18))
    return picture.rotate(0.6, fillcolor=1)


if __name__ == "__main__":
    main()
