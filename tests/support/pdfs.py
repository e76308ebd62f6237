"""Small PDFs."""

from __future__ import annotations

from io import BytesIO

from pypdf import PdfWriter


def pdf(*pages: str, size: int = 0) -> bytes:
    """Return a PDF with these texts, one a page, of at least `size` bytes."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
    ]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        page = (
            "/Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R"
        )
        objects += [
            f"<< /Type /Page {page} >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    found, places = "%PDF-1.4\n", list[int]()
    for number, content in enumerate(objects, 1):
        places.append(len(found))
        found += f"{number} 0 obj\n{content}\nendobj\n"
    found += f"%{'x' * (size - len(found))}\n" if size > len(found) else ""
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    trailer = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(found)}\n%%EOF\n"
    return f"{found}xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def locked() -> bytes:
    """Return a PDF that asks for a password."""
    writer, stream = PdfWriter(), BytesIO()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    writer.write(stream)
    return stream.getvalue()


def scanned(*texts: str | None) -> bytes:
    """Return a PDF of which pages without a text are pictures."""
    return pdf(*("" if text is None else text for text in texts))
