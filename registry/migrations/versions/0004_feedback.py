"""
What people say of answers.

Expands only, so the floor stays: code that knows none of it serves as it did.
"""

from __future__ import annotations

from alembic import op

from registry import tables

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table; what later migrations add to it they add themselves, guarded by what is there."""
    tables.metadata.create_all(op.get_bind(), tables=[tables.feedback])
