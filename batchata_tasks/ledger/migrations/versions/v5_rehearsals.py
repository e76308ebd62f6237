"""Whether an emulator answers a run."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Integer

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """Add the column; nobody knows who answered older runs."""
    op.add_column("runs", Column("rehearsal", Integer))
