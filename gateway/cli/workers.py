"""
Several processes on one port: who starts them, starts them again, and ends with them.

The parent serves nothing and opens nothing: it forks before any thread or event loop exists, so that what it
has imported is shared by all and a new process is there at once. Each child holds one end of a socket pair,
over which it says that it is ready, and which ends when the parent does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from registry import terminal
from registry.errors import BadSettings, PlatformError

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 5.0
_STEADY_S = 30.0
"""A process that lived this long starts again without delay to speak of."""
_KILL_AFTER_S = 5.0
"""Beyond the grace that the processes give their own requests."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_log = logging.getLogger(__name__)

Work = Callable[[int, Callable[[], None]], None]
"""Serve as the process of this index until SIGTERM, and call the second argument when it serves."""


@dataclass(slots=True)
class _Child:
    index: int
    pid: int | None = None
    link: socket.socket | None = None
    born_s: float = 0.0
    delay_s: float = _FIRST_DELAY_S
    due_s: float = 0.0
    ready: bool = False


def supervise(count: int, work: Work, *, ready: Callable[[], None], grace_s: float) -> None:
    """
    Run *work* in *count* processes until SIGTERM or SIGINT, and return when all have ended.

    One that ends by itself is started again, after 0.1 s at first and up to 5 s when it goes on ending;
    the others go on serving. On SIGTERM or SIGINT all get SIGTERM, and SIGKILL *grace_s* and five seconds
    later. They end by themselves when this process is killed.

    Args:
        ready: called once, when every process serves.

    Raises:
        BadSettings: a process ended before all had started once; the others were stopped.
    """
    children = [_Child(index) for index in range(count)]
    with _waking() as wakeup:
        _Parent(children, work, ready, grace_s, wakeup).run()


class _Parent:
    def __init__(
        self,
        children: list[_Child],
        work: Work,
        ready: Callable[[], None],
        grace_s: float,
        wakeup: socket.socket,
    ) -> None:
        self._children = children
        self._work = work
        self._ready = ready
        self._grace_s = grace_s
        self._wakeup = wakeup
        self._announced = False
        self._failed = False
        self._kill_at_s: float | None = None

    def run(self) -> None:
        while self._kill_at_s is None or any(child.pid is not None for child in self._children):
            if self._kill_at_s is None:
                self._start_due()
            self._wait()
            self._reap()
            if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s:
                _log.error("processes that did not end in time are killed")
                self._signal(signal.SIGKILL)
                self._kill_at_s += _KILL_AFTER_S
        if self._failed:
            message = "the gateway could not start; the lines above say why"
            raise BadSettings(message)

    def _start_due(self) -> None:
        for child in self._children:
            if child.pid is None and time.monotonic() >= child.due_s:
                self._start(child)

    def _start(self, child: _Child) -> None:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        # Held back until the child has handlers of its own, so that none is lost in between.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            child.pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            ours.close()
            theirs.close()
            self._again(child, f"worker {child.index} cannot be started: {error.strerror}")
            return
        if child.pid == 0:
            ours.close()
            for other in self._children:
                if other.link is not None:
                    other.link.close()
            self._wakeup.close()
            _become(child.index, theirs, self._work, self._grace_s)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        ours.setblocking(False)
        child.link, child.born_s, child.ready = ours, time.monotonic(), False

    def _wait(self) -> None:
        """Until a signal, a word of a child, or the next thing that is due."""
        now = time.monotonic()
        times = [child.due_s for child in self._children if child.pid is None]
        if self._kill_at_s is not None:
            times = [self._kill_at_s]
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            for child in self._children:
                if child.link is not None and not child.ready:
                    selector.register(child.link, selectors.EVENT_READ, child)
            events = selector.select(max(0.0, min(times) - now) if times else None)
        for key, _ in events:
            if key.data is not None:
                self._hear(key.data)
            else:
                self._obey(self._wakeup.recv(64))

    def _hear(self, child: _Child) -> None:
        assert child.link is not None  # noqa: S101 - registered with its link
        try:
            child.ready = bool(child.link.recv(1))
        except OSError:
            child.ready = False
        if not child.ready:
            self._unlink(child)  # it is ending; the signal of its death comes
        elif not self._announced and all(each.ready for each in self._children):
            self._announced = True
            self._ready()

    def _obey(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()

    def _stop(self) -> None:
        if self._kill_at_s is None:
            self._kill_at_s = time.monotonic() + self._grace_s + _KILL_AFTER_S
        # SIGTERM in any case: a terminal has sent its SIGINT to the children already, and a second one
        # would end their requests at once.
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid is not None:
                os.kill(child.pid, number)

    def _reap(self) -> None:
        for child in self._children:
            if child.pid is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._bury(child, os.waitstatus_to_exitcode(status))

    def _bury(self, child: _Child, code: int) -> None:
        pid, child.pid, child.ready = child.pid, None, False
        self._unlink(child)
        if self._kill_at_s is None:
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            if time.monotonic() - child.born_s >= _STEADY_S:
                child.delay_s = _FIRST_DELAY_S
            self._again(child, f"worker {child.index} (process {pid}) ended {how}")

    def _again(self, child: _Child, why: str) -> None:
        """Start *child* once more after a while; but not what never started."""
        if not self._announced:
            _log.error("%s", why)
            self._failed = True
            self._stop()
            return
        _log.error("%s; it is started again in %.1f s", why, child.delay_s)
        child.due_s = time.monotonic() + child.delay_s
        child.delay_s = min(child.delay_s * 2, _LONGEST_DELAY_S)

    def _unlink(self, child: _Child) -> None:
        if child.link is not None:
            child.link.close()
            child.link = None


@contextlib.contextmanager
def _waking() -> Iterator[socket.socket]:
    """A socket that yields the number of every signal as a byte, instead of what they do otherwise."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    before = {number: signal.signal(number, _noted) for number in _SIGNALS}
    woken = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        reading.close()
        writing.close()


def _noted(_number: int, _frame: object) -> None:
    """Do nothing: the wake-up socket has the signal's number."""


def _become(index: int, link: socket.socket, work: Work, grace_s: float) -> NoReturn:
    """Be the process of *index*, forked a moment ago; what the parent would do at its end is not done."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # before it serves; the parent says SIGTERM
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        threading.Thread(target=_end_with_parent, args=(link, grace_s), daemon=True).start()
        work(index, lambda: link.sendall(b"r"))
        code = 0
    except PlatformError as error:
        terminal.report(error, as_json=False)
        code = terminal.exit_code(error)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - this is the top of a process
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_with_parent(link: socket.socket, grace_s: float) -> None:
    """End as at SIGTERM when the parent is gone, and at once when that takes too long."""
    with contextlib.suppress(OSError):
        link.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(grace_s + _KILL_AFTER_S)
    os._exit(1)
