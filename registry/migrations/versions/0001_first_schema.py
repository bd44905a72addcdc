"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table and the revision counter."""
    op.create_table(
        "versions",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("meta", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.UniqueConstraint("kind", "name", "digest"),
        sa.UniqueConstraint("kind", "name", "number"),
    )
    op.create_index("versions_by_digest", "versions", ["digest"])
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("alias", sa.String(32), primary_key=True),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
    )
    op.create_table(
        "alias_moves",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("alias", sa.String(32), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("from_digest", sa.String(71)),
        sa.Column("to_digest", sa.String(71), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.UniqueConstraint("name", "alias", "generation"),
    )
    op.create_table(
        "evidence",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("release_name", sa.String(64), nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("received_at", sa.String(27), nullable=False),
        sa.Column("received_from", sa.String(128), nullable=False),
    )
    op.create_index("evidence_by_release", "evidence", ["release_name", "received_at"])
    op.create_table(
        "eval_runs",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("release_digest", sa.String(71), nullable=False),
        sa.Column("suite_digest", sa.String(71), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("evidence", sa.String(71), sa.ForeignKey("evidence.digest")),
        sa.Column("at", sa.String(27), nullable=False),
    )
    op.create_table(
        "trusted_keys",
        sa.Column("key_id", sa.String(71), primary_key=True),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("added_at", sa.String(27), nullable=False),
        sa.Column("added_by", sa.String(128), nullable=False),
        sa.Column("revoked_at", sa.String(27)),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("expires_at", sa.String(27)),
        sa.Column("revoked_at", sa.String(27)),
    )
    op.create_table(
        "state",
        sa.Column("key", sa.String(32), primary_key=True),
        sa.Column("value", sa.Integer, nullable=False),
    )
    state = sa.table("state", sa.column("key"), sa.column("value"))
    op.execute(sa.insert(state).values(key="revision", value=1))
