"""The little of a Redis client that counting needs; the package `redis` is imported when one is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from gateway.errors import LimitsUnavailable
from registry.errors import BadSettings, MissingExtra

_SCHEMES = {
    "redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss", "unix": "unix",
}  # fmt: skip


class Client:
    """Calls one store, each call within *timeout_s*. Connects at the first; a failed call is not repeated."""

    def __init__(self, url: str, timeout_s: float, connections: int) -> None:
        """
        Prepare for the store at *url*: `redis://`, `rediss://` (TLS) or `unix://`, or the same as `valkey`.

        Raises:
            BadSettings: *url* is none of these.
            MissingExtra: the package `redis` is not installed.
        """
        try:
            import redis.asyncio
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            message = (
                "counting limits in Redis or Valkey needs the package redis: pip install 'sluicegate[redis]'"
            )
            raise MissingExtra(message) from error
        scheme, slashes, rest = url.partition("://")
        if not slashes or scheme not in _SCHEMES:
            message = (
                "gateway.limits_store must begin with redis://, rediss://, valkey://, valkeys:// or unix://"
            )
            raise BadSettings(message)
        try:
            self._redis: Any = redis.asyncio.Redis.from_url(
                f"{_SCHEMES[scheme]}://{rest}",
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                max_connections=connections,
            )
        except (ValueError, TypeError) as error:
            message = "gateway.limits_store is no address such as redis://:password@10.0.0.5:6379/0"
            raise BadSettings(message) from error
        self._timeout_s = timeout_s
        self._no_script: type[Exception] = redis.exceptions.NoScriptError
        self._failures: tuple[type[Exception], ...] = (OSError, redis.exceptions.RedisError)

    async def execute(self, *command: str | int | bytes) -> Any:  # noqa: ANN401 - replies have many types
        """
        The reply to one command.

        Raises:
            LimitsUnavailable: there was none, or it was an error; whether it was executed is unknown.
        """
        try:
            return await self._execute(*command)
        except self._failures as error:
            raise LimitsUnavailable(_reason(error)) from error

    async def evaluate(self, digest: str, script: str, keys: Sequence[str], argument: bytes) -> bytes:
        """
        Run *script*, known by its SHA-1 *digest*; the store is sent its text when it does not know it.

        Raises:
            LimitsUnavailable: see `execute`.
        """
        try:
            try:
                reply = await self._execute("EVALSHA", digest, len(keys), *keys, argument)
            except self._no_script:
                reply = await self._execute("EVAL", script, len(keys), *keys, argument)
        except self._failures as error:
            raise LimitsUnavailable(_reason(error)) from error
        return bytes(reply)

    async def _execute(self, *command: str | int | bytes) -> Any:  # noqa: ANN401
        async with asyncio.timeout(self._timeout_s):
            return await self._redis.execute_command(*command)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}".removesuffix(": ")
