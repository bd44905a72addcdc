"""The `gateway` command line."""

from __future__ import annotations

from gateway.cli import config, engine, keys, limits, prices, serve, usage
from registry import terminal

application = terminal.command_group("Serve every model behind one OpenAI-compatible API.")
application.command("serve", epilog="Example: gateway serve --port 8080")(serve.serve)
application.command("usage", epilog="Example: gateway usage --by team --since 7d")(usage.usage)
application.add_typer(keys.application, name="keys")
application.add_typer(limits.application, name="limits")
application.add_typer(prices.application, name="prices")
application.add_typer(config.application, name="config")
application.add_typer(engine.application, name="engine")


def main() -> None:
    """Entry point of the `gateway` console script."""
    terminal.run(application)
