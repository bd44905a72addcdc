"""How Alembic reaches the database: always through the connection that `registry.db` opened."""

from __future__ import annotations

from alembic import context

from registry.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
