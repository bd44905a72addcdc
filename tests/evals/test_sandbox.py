"""Programs in the sandbox reach nothing, end in time, and pass only by running to their last line."""

from __future__ import annotations

import fcntl
import platform
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import sandbox_child
from evals.sandbox import run_python
from registry.errors import BadInput

PROJECT = Path(__file__).parents[2]
on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")


def outcome(source: str, *, seconds: float = 5.0, memory_mb: int = 512) -> tuple[str, str]:
    ran = run_python(source, seconds=seconds, memory_mb=memory_mb)
    return ran.outcome, ran.error


def test_a_program_that_runs_to_its_end_passes() -> None:
    modules = (
        "bisect, collections, datetime, decimal, functools, hashlib, heapq, itertools, json, math, random"
    )
    source = (
        f"import {modules}, re, statistics, string, typing\nhashlib.md5(b'').hexdigest()\nprint('x' * 10**6)"
    )
    ran = run_python(source)
    assert (ran.outcome, ran.error) == ("passed", "")
    assert 0 < ran.seconds < 5


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import sys; sys.exit()", "SystemExit"),
        ("import os; os._exit(0)", "exit"),
        ("import ctypes; ctypes.CDLL(None).exit(0)", "exit"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("def f(): f()\nf()", "RecursionError"),
        ("input()", "EOFError"),
        ("raise type('A' * 5000, (Exception,), {})", "A" * 100),
        (
            "class A(type): __name__ = property(lambda s: 1 / 0)\nraise A('B', (Exception,), {})",
            "exit",
        ),
    ],
)
def test_what_ends_before_its_last_line_fails(source: str, error: str) -> None:
    assert outcome(source) == ("failed", error)


@pytest.mark.parametrize("said", ["passed", "0 passed", "up"])
def test_a_program_cannot_pass_by_saying_so(said: str) -> None:
    source = f"""
import os
for file in range(64):
    try:
        os.pwrite(file, b'{said}\\n', 0)
        os.write(file, b'{said}\\n')
    except OSError:
        pass
os._exit(0)
"""
    assert outcome(source) == ("failed", "exit")


@pytest.mark.parametrize(
    "source",
    [
        "import socket; socket.socket()",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import socket; socket.socketpair()",
        "open('/etc/passwd')",
        f"open({str(PROJECT / 'pyproject.toml')!r})",
        f"open({__file__!r})",
        f"import os; os.listdir({str(PROJECT)!r})",
        "open('/proc/self/environ')",
        "open('/proc/self/mem', 'r+b')",
        "import os; os.listdir('/')",
        "open('/dev/shm/x', 'w')",
        "import os; os.mkdir('/tmp/sandboxed')",
        "import os; os.memfd_create('x')",
        "import os; os.symlink('/etc', 'x')",
        "import os; os.chdir('/etc')",
        "import os; os.execv('/bin/sh', ['sh'])",
        "import os; os.fork()",
        "import os; os.setuid(0)",
        "import os; os.kill(os.getppid(), 9)",
        "import os; os.pidfd_open(os.getppid())",
        "import subprocess; subprocess.run(['true'])",
        "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
        "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])",
        "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, 1)",
    ],
)
def test_nothing_beyond_the_program_is_within_reach(source: str) -> None:
    assert outcome(source) == ("failed", "PermissionError")


@on_x86_64
def test_raw_system_calls_are_refused() -> None:
    # socket, clone, fork, vfork, kill, setitimer, ptrace, mount, tkill, kexec_load, keyctl, unshare,
    # perf_event_open, bpf, execveat, userfaultfd, io_uring_setup, clone3
    numbers = (41, 56, 57, 58, 62, 38, 101, 165, 200, 246, 250, 272, 298, 321, 322, 323, 425, 435)
    source = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in {numbers}:
    assert libc.syscall(number, 0, 0, 0, 0, 0) == -1, number
    assert ctypes.get_errno() == 1, number
"""
    assert outcome(source) == ("passed", "")


def test_a_program_sees_no_environment_no_arguments_no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICEGATE_API_KEY", "secret")
    source = (
        "import os, sys\nassert set(os.environ) <= {'PYTHONHASHSEED', 'LC_CTYPE'}\nassert sys.argv == ['']"
    )
    assert outcome(source) == ("passed", "")
    assert outcome("import registry") == ("failed", "ModuleNotFoundError")


def test_a_thread_cannot_start() -> None:
    assert outcome("import threading; threading.Thread(target=print).start()") == ("failed", "RuntimeError")


@pytest.mark.parametrize(
    "source",
    [
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
        "import time; time.sleep(60)",
        "10 ** 10 ** 9",
        "import re; re.match('(a+)+b', 'a' * 60)",
    ],
)
def test_a_program_without_end_is_ended(source: str) -> None:
    ran = run_python(source, seconds=0.3)
    assert ran.outcome == "timeout"
    assert ran.seconds < 5


def test_memory_is_bounded() -> None:
    assert outcome("x = [0] * 10**9", memory_mb=256) == ("memory", "MemoryError")
    assert outcome("import mmap; mmap.mmap(-1, 10**9)", memory_mb=256) == ("failed", "OSError")
    assert outcome("x = bytes(10**8)", memory_mb=256) == ("passed", "")


def test_sets_have_the_same_order_in_every_run() -> None:
    order = "''.join(set('abcdefgh'))"
    said = subprocess.run(
        [sys.executable, "-c", f"print({order})"],
        env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=30, check=True,
    ).stdout.strip()  # fmt: skip
    assert [outcome(f"assert {order} == {said!r}") for _ in range(2)] == [("passed", "")] * 2


def test_programs_run_at_the_same_time() -> None:
    found: list[tuple[str, str]] = []
    threads = [
        threading.Thread(target=lambda text=text: found.append(outcome(text)))
        for text in ["assert True", "assert False"] * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [("failed", "AssertionError")] * 3 + [("passed", "")] * 3


ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x00050001, 0x80000000


def decided(
    machine: str, number: int, arguments: tuple[int, ...] = (0,) * 6, audit: int | None = None
) -> int:
    """What the filter says of a system call: its steps, followed as `bpf(4)` describes."""
    _, own = sandbox_child.MACHINES[machine]
    data = struct.pack("=IIQ6Q", number, own if audit is None else audit, 0, *arguments)
    steps, at, value = sandbox_child.instructions(machine), 0, 0
    while True:
        code, yes, no, constant = steps[at]
        if code == 0x06:
            return constant
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, constant)
            at += 1
        else:
            assert code == 0x15
            at += 1 + (yes if value == constant else no)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_allows_what_is_listed_and_nothing_else(machine: str) -> None:
    column, _ = sandbox_child.MACHINES[machine]
    listed = {numbers[column] for numbers in sandbox_child.CALLS.values()} - {None}
    conditional = {sandbox_child.PRLIMIT[column], sandbox_child.FCNTL[column]}
    decisions = {number: decided(machine, number) for number in (*range(600), 0x40000000, 0x40000001)}
    assert {number for number, said in decisions.items() if said == ALLOWED} == listed | conditional
    assert set(decisions.values()) == {ALLOWED, REFUSED}
    assert decided(machine, 0, audit=0x40000003) == KILLED


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@given(limits=st.integers(1, 2**64 - 1), command=st.integers(0, 2**32 - 1) | st.integers(0, 1100))
def test_limits_cannot_be_set_nor_descriptors_owned(machine: str, limits: int, command: int) -> None:
    column, _ = sandbox_child.MACHINES[machine]
    assert decided(machine, sandbox_child.PRLIMIT[column], (0, 0, limits, 0, 0, 0)) == REFUSED
    harmless = (fcntl.F_DUPFD, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_DUPFD_CLOEXEC)
    decision = decided(machine, sandbox_child.FCNTL[column], (0, command, 0, 0, 0, 0))
    assert decision == (ALLOWED if command in harmless else REFUSED)


@pytest.mark.parametrize(
    ("seconds", "memory_mb", "size", "named"),
    [
        (0.0, 512, 1, "seconds is 0"),
        (601.0, 512, 1, "seconds is 601"),
        (1.0, 63, 1, "memory_mb is 63"),
        (1.0, 512, 10**6 + 1, "1000001 characters"),
    ],
)
def test_limits_out_of_range_are_refused(seconds: float, memory_mb: int, size: int, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        run_python("#" * size, seconds=seconds, memory_mb=memory_mb)


WITHOUT = """
import ctypes, struct, sys
from evals.sandbox import run_python
from evals.sandbox_child import Kernel
from registry.errors import BadInput
kernel = Kernel()
kernel.control(38, 1)
number = int(sys.argv[1])
refuse = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050026), (0x06, 0, 0, 0x7FFF0000)]
steps = b"".join(struct.pack("HBBI", *step) for step in refuse)
program = ctypes.create_string_buffer(steps, len(steps))
header = struct.pack("HxxxxxxQ", len(refuse), ctypes.addressof(program))
kernel.control(22, 2, ctypes.create_string_buffer(header, len(header)))
try:
    print(run_python("x = 1"))
except BadInput as error:
    print(error)
"""


@on_x86_64
@pytest.mark.parametrize("missing", [444, 446, 157, 126])
def test_nothing_runs_where_a_wall_cannot_be_put_up(missing: int) -> None:
    # A kernel without landlock_create_ruleset, landlock_restrict_self, prctl or capset.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(missing)],
        capture_output=True, text=True, timeout=30, cwd=PROJECT, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("programs cannot be run safely here: ")


@on_x86_64
def test_name_spaces_are_a_bonus() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "272"],
        capture_output=True, text=True, timeout=30, cwd=PROJECT, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("Ran(outcome='passed'")
