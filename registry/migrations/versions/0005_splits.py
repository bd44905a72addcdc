"""
Traffic splits.

Expands only: code that knows none of it serves each alias's own release alone, and a split that outlives a
move made by such code names another base, so it is not in force.
"""

from __future__ import annotations

from alembic import op

from registry import tables

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add what shares the traffic of aliases."""
    tables.metadata.create_all(op.get_bind(), tables=[tables.splits])
