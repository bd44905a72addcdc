"""Limits, prices and usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what keys are limited by, what models cost, and what was used."""
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("routes", sa.Text, nullable=False, server_default='["*"]'))
        table.add_column(sa.Column("team", sa.String(64), nullable=False, server_default=""))
        table.add_column(sa.Column("limits", sa.Text, nullable=False, server_default="{}"))
        table.add_column(sa.Column("account", sa.String(40), nullable=False, server_default=""))
    op.execute("UPDATE api_keys SET account = id")
    op.create_table(
        "limits",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("subject", sa.String(200), primary_key=True),
        sa.Column("limits", sa.Text, nullable=False),
    )
    op.create_table(
        "prices",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("effective_from", sa.String(27), nullable=False),
        sa.Column("input_picousd", sa.BigInteger, nullable=False),
        sa.Column("output_picousd", sa.BigInteger, nullable=False),
        sa.Column("cached_input_picousd", sa.BigInteger),
        sa.Column("withdrawn", sa.Integer, nullable=False),
        sa.Column("created_at", sa.String(27), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
    )
    op.create_index("prices_by_model", "prices", ["model", "effective_from"])
    op.create_table(
        "usage",
        sa.Column("request_id", sa.String(40), primary_key=True),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("account", sa.String(40), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("release", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("route", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error", sa.String(64), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("estimated", sa.Integer, nullable=False),
        sa.Column("cost_microusd", sa.BigInteger),
    )
    op.create_index("usage_by_time", "usage", ["at"])
    op.create_table(
        "spending",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("subject", sa.String(200), primary_key=True),
        sa.Column("period", sa.String(8), primary_key=True),
        sa.Column("start", sa.String(27), primary_key=True),
        sa.Column("microusd", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("unpriced", sa.BigInteger, nullable=False),
    )
