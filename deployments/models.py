"""Response models of the specs in this folder: the shapes that their answers must have."""

from __future__ import annotations

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
