"""Other servers of the Model Context Protocol, as the settings name them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from gateway.dataplane.breaker import Breaker
from gateway.dataplane.mcp_client import ClientOptions, McpClient
from gateway.dataplane.mcp_proxy import ToolServer
from gateway.errors import NotReady, UpstreamUnreachable
from gateway.guardrails.policy import Compiled, compile_policy
from gateway.providers.rotating import RotatingKey
from gateway.settings import GatewaySettings, McpServerSettings
from gateway.transport import TlsOptions, open_transport
from gateway.transport.outgoing import locate
from registry import policies, secrets, versions
from registry.errors import BadSettings, PlatformError
from registry.refs import parse_ref
from registry.workspace import Workspace

_log = logging.getLogger(__name__)


def open_tool_servers(
    settings: GatewaySettings, workspace: Workspace, environ: Mapping[str, str]
) -> dict[str, ToolServer]:
    """
    Every server of the settings by its name; none is asked before a request needs it.

    Raises:
        BadSettings: a URL that cannot be called, a key that is not there or no header's value, or a policy's
            name that is none.
    """
    return {name: _server(name, settings, workspace, environ) for name in settings.mcp}


def _server(
    name: str, settings: GatewaySettings, workspace: Workspace, environ: Mapping[str, str]
) -> ToolServer:
    server = settings.mcp[name]
    _check_url(name, server.url)
    options = ClientOptions(
        name,
        server.url,
        connect_timeout_s=server.connect_timeout_s,
        first_byte_timeout_s=server.timeout_s,
        idle_timeout_s=server.timeout_s,
        total_timeout_s=server.timeout_s,
        max_response_bytes=server.max_response_bytes,
    )
    transport = open_transport(options, tls=TlsOptions(server.ca_file, server.client_certificate))
    client = McpClient(options, transport, _Key(name, server, environ).current)
    policy = _Policy(name, server.guardrails, workspace).screens if server.guardrails else None
    breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)
    return ToolServer(
        name, client, patterns=server.tools, fresh_s=server.list_s, breaker=breaker, policy=policy
    )


class _Key:
    """What a server is sent as its key: read at the start, or followed where it is a reference."""

    def __init__(self, name: str, server: McpServerSettings, environ: Mapping[str, str]) -> None:
        self._reference = server.api_key
        self._environ = environ
        self._plain = _plain(name, server, environ)
        self._rotating: RotatingKey | None = None
        self._lock = asyncio.Lock()

    async def current(self) -> str | None:
        """The key, or None where the server takes none. Raises what `secrets.resolve` does."""
        if self._reference is None:
            return self._plain
        async with self._lock:
            if self._rotating is None:
                fetch = partial(secrets.resolve, self._reference, self._environ)
                self._rotating = RotatingKey(self._reference, await asyncio.to_thread(fetch), fetch)
        return self._rotating.current()


class _Policy:
    """A guardrail policy of the registry, read and compiled when it is first needed."""

    def __init__(self, server: str, name: str, workspace: Workspace) -> None:
        self._server = server
        self._ref = parse_ref(name)
        self._workspace = workspace
        self._compiled: Compiled | None = None
        self._lock = asyncio.Lock()

    async def screens(self) -> Compiled:
        """
        Its screens.

        Raises:
            NotReady: it cannot be read or compiled, so nothing may pass; the next call tries again.
        """
        async with self._lock:
            if self._compiled is None:
                try:
                    self._compiled = await asyncio.to_thread(self._read)
                except PlatformError as error:
                    _log.warning("gateway.mcp.%s.guardrails: %s", self._server, error.message)
                    message = (
                        f"the guardrails of the tool server {self._server!r} cannot be had: {error.code}"
                    )
                    raise NotReady(message) from error
            return self._compiled

    def _read(self) -> Compiled:
        with self._workspace.reading() as connection:
            version = versions.get(connection, "guardrail-policy", self._ref)
        return compile_policy(policies.guardrails_of(version))


def _check_url(name: str, url: str) -> None:
    try:
        locate(url)
    except (ValueError, UpstreamUnreachable) as error:
        message = f"gateway.mcp.{name}.url: {error}"
        raise BadSettings(message) from error


def _plain(name: str, server: McpServerSettings, environ: Mapping[str, str]) -> str | None:
    where = f"gateway.mcp.{name}"
    if server.api_key_file is not None:
        try:
            return _sendable(f"{where}.api_key_file", server.api_key_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            message = f"{where}.api_key_file: {server.api_key_file} cannot be read"
            raise BadSettings(message) from error
    if server.api_key_env is not None:
        if server.api_key_env not in environ:
            message = f"{where}.api_key_env: {server.api_key_env} is not set"
            raise BadSettings(message)
        return _sendable(f"{where}.api_key_env", environ[server.api_key_env])
    return None


def _sendable(where: str, key: str) -> str | None:
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        message = f"{where}: the key is not one line of printable ASCII"
        raise BadSettings(message)
    return key or None
