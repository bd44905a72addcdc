"""
The tables. Rows of `versions`, `alias_moves`, `evidence`, `prices` and `audit` are only ever inserted; of
`audit` the body is emptied when its retention ends, and versions that nothing reaches are collected.

Text sorts and compares by its bytes on every database.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
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


def _text(length: int) -> String:
    return String(length).with_variant(String(length, collation="C"), "postgresql")


versions = Table(
    "versions",
    metadata,
    Column("id", _text(40), primary_key=True),
    Column("kind", _text(24), nullable=False),
    Column("name", _text(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", _text(71), nullable=False),
    Column("content", Text, nullable=False),
    Column("meta", Text, nullable=False),
    Column("created_at", _text(27), nullable=False),
    Column("created_by", _text(128), nullable=False),
    UniqueConstraint("kind", "name", "digest"),
    UniqueConstraint("kind", "name", "number"),
    Index("versions_by_digest", "digest", "kind"),
    Index("versions_by_kind", "kind", "id"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("name", _text(64), primary_key=True),
    Column("alias", _text(32), primary_key=True),
    Column("digest", _text(71), nullable=False),
    Column("generation", Integer, nullable=False),
)

alias_moves = Table(
    "alias_moves",
    metadata,
    Column("id", _text(40), primary_key=True),
    Column("name", _text(64), nullable=False),
    Column("alias", _text(32), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("from_digest", _text(71)),
    Column("to_digest", _text(71), nullable=False),
    Column("action", _text(16), nullable=False),
    Column("actor", _text(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("at", _text(27), nullable=False),
    Column("audit_seq", BigInteger, nullable=False),
    UniqueConstraint("name", "alias", "generation"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("digest", _text(71), primary_key=True),
    Column("release_name", _text(64), nullable=False),
    Column("envelope", Text, nullable=False),
    Column("received_at", _text(27), nullable=False),
    Column("received_from", _text(128), nullable=False),
    Column("release_digest", _text(71), nullable=False, server_default=""),
    Column("valid_from", _text(27), nullable=False, server_default=""),
    Column("withdrawn_at", _text(27)),
    Index("evidence_by_release", "release_name", "received_at"),
    Index("evidence_by_digest", "release_digest", "valid_from"),
)

eval_runs = Table(
    "eval_runs",
    metadata,
    Column("id", _text(40), primary_key=True),
    Column("release_digest", _text(71), nullable=False),
    Column("suite_digest", _text(71), nullable=False),
    Column("verdict", _text(16), nullable=False),
    Column("summary", Text, nullable=False),
    Column("evidence", _text(71), ForeignKey("evidence.digest")),
    Column("at", _text(27), nullable=False),
)

trusted_keys = Table(
    "trusted_keys",
    metadata,
    Column("key_id", _text(71), primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("added_at", _text(27), nullable=False),
    Column("added_by", _text(128), nullable=False),
    Column("revoked_at", _text(27)),
    Column("retired_at", _text(27)),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _text(40), primary_key=True),
    Column("name", _text(64), nullable=False),
    Column("prefix", _text(16), nullable=False),
    Column("digest", _text(64), nullable=False, unique=True),
    Column("models", Text, nullable=False),
    Column("created_at", _text(27), nullable=False),
    Column("expires_at", _text(27)),
    Column("revoked_at", _text(27)),
    Column("routes", Text, nullable=False, server_default='["*"]'),
    Column("team", _text(64), nullable=False, server_default=""),
    Column("limits", Text, nullable=False, server_default="{}"),
    Column("account", _text(40), nullable=False, server_default=""),
)

limits = Table(
    "limits",
    metadata,
    Column("kind", _text(16), primary_key=True),
    Column("subject", _text(200), primary_key=True),
    Column("limits", Text, nullable=False),
)

prices = Table(
    "prices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", _text(200), nullable=False),
    Column("effective_from", _text(27), nullable=False),
    Column("input_picousd", BigInteger, nullable=False),
    Column("output_picousd", BigInteger, nullable=False),
    Column("cached_input_picousd", BigInteger),
    Column("withdrawn", Integer, nullable=False),
    Column("created_at", _text(27), nullable=False),
    Column("created_by", _text(128), nullable=False),
    Index("prices_by_model", "model", "effective_from"),
)

usage = Table(
    "usage",
    metadata,
    Column("request_id", _text(40), primary_key=True),
    Column("at", _text(27), nullable=False),
    Column("account", _text(40), nullable=False),
    Column("key_id", _text(40), nullable=False),
    Column("team", _text(64), nullable=False),
    Column("user", _text(64), nullable=False),
    Column("session", _text(64), nullable=False),
    Column("release", _text(200), nullable=False),
    Column("digest", _text(71), nullable=False),
    Column("model", _text(200), nullable=False),
    Column("route", _text(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("error", _text(64), nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("estimated", Integer, nullable=False),
    Column("cost_microusd", BigInteger),
    Index("usage_by_time", "at"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", _text(40), primary_key=True),
    Column("request_id", _text(40), nullable=False),
    Column("row", Integer, nullable=False),
    Column("name", _text(64), nullable=False),
    Column("user", _text(64), nullable=False),
    Column("account", _text(40), nullable=False),
    Column("release", _text(200), nullable=False),
    Column("digest", _text(71), nullable=False),
    Column("model", _text(200), nullable=False),
    Column("score", Float(53)),
    Column("label", Text),
    Column("comment", Text),
    Column("created_at", _text(27), nullable=False),
    Column("updated_at", _text(27), nullable=False),
    UniqueConstraint("request_id", "row", "name", "user"),
    Index("feedback_by_release", "release", "id"),
    Index("feedback_by_user", "user"),
)

spending = Table(
    "spending",
    metadata,
    Column("kind", _text(16), primary_key=True),
    Column("subject", _text(200), primary_key=True),
    Column("period", _text(8), primary_key=True),
    Column("start", _text(27), primary_key=True),
    Column("microusd", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("unpriced", BigInteger, nullable=False),
)

state = Table(
    "state",
    metadata,
    Column("key", _text(32), primary_key=True),
    Column("value", Integer, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", _text(27), nullable=False),
    Column("kind", _text(16), nullable=False),
    Column("action", _text(64), nullable=False),
    Column("actor", _text(128), nullable=False),
    Column("target", _text(300), nullable=False),
    Column("subject", _text(40)),
    Column("body", Text),
    Column("body_digest", _text(64), nullable=False),
    Column("previous", _text(64), nullable=False),
    Column("hash", _text(64), nullable=False),
    Column("key_id", _text(71)),
    Column("signature", _text(96)),
    Index("audit_by_target", "target", "seq"),
)

audit_keys = Table(
    "audit_keys",
    metadata,
    Column("key_id", _text(71), primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("added_at", _text(27), nullable=False),
)

subject_keys = Table(
    "subject_keys",
    metadata,
    Column("name", _text(64), primary_key=True),
    Column("subject", _text(40), nullable=False, unique=True),
    Column("key", _text(64), nullable=False),
    Column("created_at", _text(27), nullable=False),
)

legal_holds = Table(
    "legal_holds",
    metadata,
    Column("id", _text(40), primary_key=True),
    Column("scope", _text(300), nullable=False),
    Column("reason", Text, nullable=False),
    Column("placed_at", _text(27), nullable=False),
    Column("placed_by", _text(128), nullable=False),
    Column("released_at", _text(27)),
    Column("released_by", _text(128)),
)

users = Table(
    "users",
    metadata,
    Column("name", _text(64), primary_key=True),
    Column("role", _text(16), nullable=False),
    Column("digest", _text(64), nullable=False, unique=True),
    Column("created_at", _text(27), nullable=False),
    Column("created_by", _text(128), nullable=False),
    Column("revoked_at", _text(27)),
)

approvals = Table(
    "approvals",
    metadata,
    Column("name", _text(64), primary_key=True),
    Column("digest", _text(71), primary_key=True),
    Column("alias", _text(32), primary_key=True),
    Column("approver", _text(128), primary_key=True),
    Column("comment", Text, nullable=False),
    Column("at", _text(27), nullable=False),
)

labels = Table(
    "labels",
    metadata,
    Column("kind", _text(24), primary_key=True),
    Column("name", _text(64), primary_key=True),
    Column("label", _text(32), primary_key=True),
    Column("digest", _text(71), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("moved_at", _text(27), nullable=False),
    Column("moved_by", _text(128), nullable=False),
)

prompt_files = Table(
    "prompt_files",
    metadata,
    Column("kind", _text(24), primary_key=True),
    Column("name", _text(64), primary_key=True),
    Column("digest", _text(71), primary_key=True),
    Column("text", Text, nullable=False),
    Column("at", _text(27), nullable=False),
    Column("by", _text(128), nullable=False),
)

splits = Table(
    "splits",
    metadata,
    Column("name", _text(64), primary_key=True),
    Column("alias", _text(32), primary_key=True),
    Column("id", _text(40), nullable=False),
    Column("content", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_at", _text(27), nullable=False),
    Column("set_by", _text(128), nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", _text(40), primary_key=True),
    Column("url", Text, nullable=False),
    Column("events", Text, nullable=False),
    Column("secret", _text(96), nullable=False),
    Column("created_at", _text(27), nullable=False),
    Column("created_by", _text(128), nullable=False),
    Column("disabled_at", _text(27)),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", _text(40), primary_key=True),
    Column("webhook", _text(40), nullable=False),
    Column("event", _text(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", _text(27), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", _text(27)),
    Column("delivered_at", _text(27)),
    Column("last_error", Text),
    Index("webhook_deliveries_due", "next_at"),
)
