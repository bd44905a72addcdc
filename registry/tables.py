"""The tables. Rows of `versions`, `alias_moves` and `evidence` are only ever inserted."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

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
)

state = Table(
    "state",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", Integer, nullable=False),
)
