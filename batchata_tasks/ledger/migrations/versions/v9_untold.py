"""What `watch` did for runs, and Prefect's server has not been told yet."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String, Text

revision = "9"
down_revision = "8"


def upgrade() -> None:
    """Add the table; it is empty as long as the server takes what it is told."""
    op.create_table(
        "untold",
        Column("run_id", String(40), primary_key=True),
        Column("facts", Text, nullable=False),
    )
