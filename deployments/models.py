"""Response models of the specs in this folder: the shapes that their answers must have."""

from __future__ import annotations

from datetime import date  # noqa: TC003 - Pydantic reads it
from enum import StrEnum

from pydantic import BaseModel, Field


class Area(StrEnum):
    """Where a package is at home."""

    DATA = "data"
    WEB = "web"
    MACHINE_LEARNING = "machine learning"
    INFRASTRUCTURE = "infrastructure"
    TESTING = "testing"
    SECURITY = "security"
    OTHER = "other"


class Topic(BaseModel):
    """The label of one package."""

    topic: Area = Field(description="The area that fits best.")
    keywords: list[str] = Field(description="Two to four keywords, lower case.")
    audience: str | None = Field(
        description="Who uses it, in a few words; null if the summary does not tell."
    )
    confidence: float = Field(ge=0, le=1, description="How sure the label is.")


class Invoice(BaseModel):
    """What one invoice says."""

    sender: str = Field(description="Who sent it (Absender).")
    invoice_number: str = Field(description="Its number (Rechnungsnummer).")
    invoice_date: date = Field(description="The day it is of (Rechnungsdatum).")
    net_amount: float = Field(description="The sum before taxes (Nettobetrag).")
    total_due: float = Field(description="What is to be paid (Gesamtbetrag).")
