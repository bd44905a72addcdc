"""
A local engine, kept alive: started, asked for a token, watched, restarted with growing pauses, stopped.

    async with Supervisor(local(engine, 8000, log=home / "engine.log")) as supervisor:
        await supervisor.wait_ready(600)

    starting ──a token──▶ ready ──exit, or deaf──▶ waiting ──pause──▶ starting
        └─────exit, or too slow──────────────────────┘ └──too often──▶ failed
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Self

import aiohttp

from gateway.engines.errors import EngineFailed, EngineNotReady
from gateway.engines.launch import EngineStatus, Launch, Patience, State
from gateway.engines.log import BoundedLog
from gateway.engines.probe import alive, one_token
from gateway.engines.process import Running, end, spawn

_REFUSALS_IN_A_ROW = 3
"""So often a live engine may refuse the request for a token before no start can help."""


class Supervisor:
    """Keeps one engine alive. Owned by one event loop."""

    def __init__(self, launch: Launch, patience: Patience | None = None) -> None:
        """Nothing is started yet."""
        self.launch = launch
        self._patience = patience or Patience()
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()
        self._state: State = "stopped"
        self._pid: int | None = None
        self._starts = 0
        self._ready_at: float | None = None
        self._reason: str | None = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    async def start(self) -> None:
        """
        Begin to keep the engine alive, in the background. Idempotent while it does; begins anew after
        a failure.

        Raises:
            EngineFailed: the log cannot be written.
        """
        if self._task is not None and not self._task.done():
            return
        known = (self.launch.api_key or "", self.launch.environment.get("HF_TOKEN", ""))
        try:
            log = BoundedLog(self.launch.log, self._patience.log_bytes, known)
        except OSError as error:
            message = f"the engine's log {self.launch.log} cannot be written: {error.strerror}"
            raise EngineFailed(message) from error
        self._starts, self._reason, self._state = 0, None, "starting"
        self._task = asyncio.create_task(self._keep(log))

    async def wait_ready(self, timeout_s: float) -> None:
        """
        Return when the engine has answered with a token.

        Raises:
            EngineNotReady: it has not within *timeout_s*, or was stopped.
            EngineFailed: it will not.
        """

        def settled() -> bool:
            return self._state in ("ready", "failed", "stopped")

        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(settled)
        if self._state == "ready":
            return
        reason = f": {self._reason}" if self._reason else ""
        if self._state == "failed":
            message = f"the engine of {self.launch.model} failed{reason}"
            raise EngineFailed(message)
        message = f"the engine of {self.launch.model} is {self._state} after {timeout_s:g} s{reason}"
        raise EngineNotReady(message)

    async def stop(self) -> None:
        """End the engine and all that it started, within `stop_s` and seven seconds. Idempotent."""
        task = self._task
        if task is None:
            return
        task.cancel()
        await asyncio.wait((task,))
        if self._ending is not None:
            await asyncio.wait((self._ending,))
        self._task = None
        await self._become("stopped")
        if not task.cancelled():
            task.result()

    def status(self) -> EngineStatus:
        """What is known now."""
        ready_s = monotonic() - self._ready_at if self._ready_at is not None else None
        return EngineStatus(self._state, self._pid, max(0, self._starts - 1), ready_s, self._reason)

    async def _keep(self, log: BoundedLog) -> None:
        """Lives, one after another, until one of them cannot be mended."""
        failures = 0
        try:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
                while True:
                    await self._become("starting")
                    self._starts += 1
                    try:
                        steady = await self._live(session, log)
                    except EngineFailed as error:
                        self._reason = error.message
                        break
                    failures = 1 if steady else failures + 1
                    if failures > self._patience.most_restarts:
                        break
                    await self._become("waiting")
                    await asyncio.sleep(self._patience.pause_s(failures))
            await self._become("failed")
        finally:
            log.close()

    async def _live(self, session: aiohttp.ClientSession, log: BoundedLog) -> bool:
        """
        One process, from its start to its end; whether it was ready for long.

        Raises:
            EngineFailed: another start would fare no better.
        """
        log.begin()
        running = await spawn(self.launch.argv, self.launch.environment, log)
        self._pid = running.process.pid
        exited = asyncio.create_task(running.process.wait())
        steady = False
        try:
            problem = await self._until(exited, self._become_ready(session))
            if problem is None:
                self._ready_at = monotonic()
                await self._become("ready")
                problem = await self._until(exited, self._become_deaf(session))
                steady = monotonic() - self._ready_at >= self._patience.steady_s
        finally:
            self._ready_at = None
            self._ending = asyncio.create_task(self._end(running, exited))
            await asyncio.shield(self._ending)
        self._reason = problem or _obituary(exited.result(), log.tail())
        return steady

    async def _end(self, running: Running, exited: asyncio.Task[int]) -> None:
        await end(running, self._patience.stop_s)
        exited.cancel()
        self._pid = None

    async def _until(self, exited: asyncio.Task[int], doing: Awaitable[str | None]) -> str | None:
        """What *doing* came to, unless the process exits first: then an empty text."""
        task = asyncio.ensure_future(doing)
        try:
            await asyncio.wait((exited, task), return_when=asyncio.FIRST_COMPLETED)
            return "" if exited.done() else task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _become_ready(self, session: aiohttp.ClientSession) -> str | None:
        """None once a token came; else why the engine is given up."""
        launch, patience, refusals = self.launch, self._patience, 0
        last = "it was not asked"
        with suppress(TimeoutError):
            async with asyncio.timeout(patience.start_s):
                while True:
                    try:
                        await one_token(
                            session,
                            launch.url,
                            launch.model,
                            api_key=launch.api_key,
                            timeout_s=patience.probe_s,
                        )
                    except EngineNotReady as error:
                        last, refusals = error.message, 0
                    except EngineFailed as error:
                        last, refusals = error.message, refusals + 1
                        if refusals == _REFUSALS_IN_A_ROW:
                            raise
                    else:
                        return None
                    await asyncio.sleep(patience.probe_pause_s)
        return f"no token within {patience.start_s:g} s of its start: {last}"

    async def _become_deaf(self, session: aiohttp.ClientSession) -> str | None:
        """Return when a ready engine has left several looks in a row unanswered."""
        patience, missed = self._patience, 0
        while missed < patience.checks_missed:
            await asyncio.sleep(patience.check_every_s)
            well = await alive(session, self.launch.url, timeout_s=patience.probe_s)
            missed = 0 if well else missed + 1
        return f"/health went unanswered {missed} times in a row"

    async def _become(self, state: State) -> None:
        async with self._changed:
            self._state = state
            self._changed.notify_all()


def _obituary(code: int, tail: str) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"exited with status {code}"
    return f"it {how}" + (f"; its last words: {tail}" if tail else "")
