"""The `gateway` command line."""

from __future__ import annotations

from gateway.cli import keys, serve
from registry import terminal

application = terminal.command_group("Serve every model behind one OpenAI-compatible API.")
application.command("serve", epilog="Example: gateway serve --port 8080")(serve.serve)
application.add_typer(keys.application, name="keys")


def main() -> None:
    """Entry point of the `gateway` console script."""
    terminal.run(application)
