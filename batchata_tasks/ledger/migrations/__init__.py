"""Migrations of older ledgers: one Alembic revision for each version of the schema.

A revision is named after the version that it leads to. The ledger's own `meta.schema_version` holds
the version that it has, as it did before there were migrations, so Alembic needs no table of its
own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

if TYPE_CHECKING:
    from sqlalchemy import Connection

BASE = 0  # there is no schema yet


def migrate(connection: Connection, before: int, after: int) -> None:
    """Change the schema from one version to a later one, within the connection's transaction."""
    script = ScriptDirectory(str(Path(__file__).parent))
    steps = list(script.iterate_revisions(str(after), "base" if before == BASE else str(before)))
    with Operations.context(MigrationContext.configure(connection)):
        for step in reversed(steps):
            step.module.upgrade()
