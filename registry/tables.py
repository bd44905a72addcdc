"""The tables. Rows of `versions`, `alias_moves`, `evidence` and `prices` are only ever inserted."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

versions = Table(
    "versions",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("kind", String(24), nullable=False),
    Column("name", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", String(71), nullable=False),
    Column("content", Text, nullable=False),
    Column("meta", Text, nullable=False),
    Column("created_at", String(27), nullable=False),
    Column("created_by", String(128), nullable=False),
    UniqueConstraint("kind", "name", "digest"),
    UniqueConstraint("kind", "name", "number"),
    Index("versions_by_digest", "digest"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("alias", String(32), primary_key=True),
    Column("digest", String(71), nullable=False),
    Column("generation", Integer, nullable=False),
)

alias_moves = Table(
    "alias_moves",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("alias", String(32), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("from_digest", String(71)),
    Column("to_digest", String(71), nullable=False),
    Column("action", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("at", String(27), nullable=False),
    UniqueConstraint("name", "alias", "generation"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("release_name", String(64), nullable=False),
    Column("envelope", Text, nullable=False),
    Column("received_at", String(27), nullable=False),
    Column("received_from", String(128), nullable=False),
    Index("evidence_by_release", "release_name", "received_at"),
)

eval_runs = Table(
    "eval_runs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("release_digest", String(71), nullable=False),
    Column("suite_digest", String(71), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("summary", Text, nullable=False),
    Column("evidence", String(71), ForeignKey("evidence.digest")),
    Column("at", String(27), nullable=False),
)

trusted_keys = Table(
    "trusted_keys",
    metadata,
    Column("key_id", String(71), primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("added_at", String(27), nullable=False),
    Column("added_by", String(128), nullable=False),
    Column("revoked_at", String(27)),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("models", Text, nullable=False),
    Column("created_at", String(27), nullable=False),
    Column("expires_at", String(27)),
    Column("revoked_at", String(27)),
    Column("routes", Text, nullable=False, server_default='["*"]'),
    Column("team", String(64), nullable=False, server_default=""),
    Column("limits", Text, nullable=False, server_default="{}"),
    Column("account", String(40), nullable=False, server_default=""),
)

limits = Table(
    "limits",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("subject", String(200), primary_key=True),
    Column("limits", Text, nullable=False),
)

prices = Table(
    "prices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(200), nullable=False),
    Column("effective_from", String(27), nullable=False),
    Column("input_picousd", BigInteger, nullable=False),
    Column("output_picousd", BigInteger, nullable=False),
    Column("cached_input_picousd", BigInteger),
    Column("withdrawn", Integer, nullable=False),
    Column("created_at", String(27), nullable=False),
    Column("created_by", String(128), nullable=False),
    Index("prices_by_model", "model", "effective_from"),
)

usage = Table(
    "usage",
    metadata,
    Column("request_id", String(40), primary_key=True),
    Column("at", String(27), nullable=False),
    Column("account", String(40), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("team", String(64), nullable=False),
    Column("user", String(64), nullable=False),
    Column("session", String(64), nullable=False),
    Column("release", String(200), nullable=False),
    Column("digest", String(71), nullable=False),
    Column("model", String(200), nullable=False),
    Column("route", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", String(64), nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("estimated", Integer, nullable=False),
    Column("cost_microusd", BigInteger),
    Index("usage_by_time", "at"),
)

spending = Table(
    "spending",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("subject", String(200), primary_key=True),
    Column("period", String(8), primary_key=True),
    Column("start", String(27), primary_key=True),
    Column("microusd", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),
)

state = Table(
    "state",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", Integer, nullable=False),
)
