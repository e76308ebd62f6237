"""What was done to landed rows: answers that were read anew, rows that were forgotten."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, String

revision = "6"
down_revision = "5"


def upgrade() -> None:
    """Add the tables; of what older versions did, the commits of datasets tell a part."""
    op.create_table(
        "rereads",
        Column("dataset_id", String(40), primary_key=True),
        Column("part", String(24), primary_key=True),
        Column("noted_at", BigInteger, nullable=False),
    )
    op.create_table(
        "forgotten",
        Column("custom_id", String(64), primary_key=True),
        Column("chunk_id", String(40), nullable=False),
    )
    op.create_index("forgotten_chunk", "forgotten", ["chunk_id"])
