"""
Audit chain, users, approvals, labels, prompt files, webhooks.

Expands only: what read and pushed versions before still does. Moving an alias takes an audit record from here
on, so `alias_moves.audit_seq` has no default: code that knows none of it fails to move rather than to record.
"""

from __future__ import annotations

import base64
import json

import sqlalchemy as sa
from alembic import op

from registry import tables

revision = "0003"
down_revision = "0002"

_NEW = (
    "audit", "audit_keys", "subject_keys", "legal_holds", "users", "approvals", "labels", "prompt_files",
    "webhooks", "webhook_deliveries",
)


def upgrade() -> None:
    """Add the tables, and the columns that say which evidence is about which bytes."""
    connection = op.get_bind()
    # What later migrations add to these tables they add themselves, guarded by what is there.
    tables.metadata.create_all(connection, tables=[tables.metadata.tables[name] for name in _NEW])
    op.create_index("versions_by_kind", "versions", ["kind", "id"])
    # With the kind in it, or SQLite would rather walk all versions of a kind.
    op.drop_index("versions_by_digest", "versions")
    op.create_index("versions_by_digest", "versions", ["digest", "kind"])
    with op.batch_alter_table("alias_moves") as table:
        table.add_column(sa.Column("audit_seq", sa.BigInteger, nullable=True))
    op.execute("UPDATE alias_moves SET audit_seq = 0")
    with op.batch_alter_table("alias_moves") as table:
        table.alter_column("audit_seq", existing_type=sa.BigInteger, nullable=False)
    with op.batch_alter_table("trusted_keys") as table:
        table.add_column(sa.Column("retired_at", sa.String(27)))
    with op.batch_alter_table("evidence") as table:
        table.add_column(sa.Column("release_digest", sa.String(71), nullable=False, server_default=""))
        table.add_column(sa.Column("valid_from", sa.String(27), nullable=False, server_default=""))
        table.add_column(sa.Column("withdrawn_at", sa.String(27)))
    op.create_index("evidence_by_digest", "evidence", ["release_digest", "valid_from"])
    _fill_evidence(connection)
    op.execute("INSERT INTO state (key, value) VALUES ('schema_floor', 3)")
    op.execute("INSERT INTO state (key, value) VALUES ('adopt', 1)")
    if connection.dialect.name == "postgresql":
        _order_by_bytes(connection)


def _fill_evidence(connection: sa.Connection) -> None:
    table = sa.table("evidence", *(sa.column(c) for c in ("digest", "envelope", "release_digest", "valid_from")))
    for digest, text in connection.execute(sa.select(table.c.digest, table.c.envelope)).all():
        try:
            content = json.loads(base64.b64decode(json.loads(text)["payload"]))
            said = {
                "release_digest": f"sha256:{content['subject'][0]['digest']['sha256']}"[:71],
                "valid_from": str(content["predicate"]["validFrom"])[:27],
            }
        except (ValueError, KeyError, TypeError, IndexError):
            continue  # damaged: it can justify nothing, and `registry verify` reports it
        connection.execute(table.update().where(table.c.digest == digest).values(said))


def _order_by_bytes(connection: sa.Connection) -> None:
    quote = connection.dialect.identifier_preparer.quote
    for table in sa.inspect(connection).get_table_names():
        for column in sa.inspect(connection).get_columns(table):
            kind = column["type"]
            if isinstance(kind, sa.String) and kind.length and kind.collation != "C" and table != "alembic_version":
                op.execute(
                    f"ALTER TABLE {quote(table)} ALTER COLUMN {quote(column['name'])} "
                    f'TYPE varchar({kind.length}) COLLATE "C"'
                )
