"""
What `evals.sandbox` starts: takes its own rights away, then runs a program that nobody reviewed.

Run as a script, never imported by the platform: only the standard library is at hand. Stdin brings JSON with
`source`, `nonce`, `seconds`, `memory_mb`, and two descriptors of files that the parent reads: `walls`, closed
before the program begins, and `report`.

Two walls must stand, or nothing runs. Landlock (Linux 5.13, `landlock(7)`) leaves the standard library and
shared objects to read, and nothing to write. Seccomp (`seccomp(2)`) leaves the system calls on a list: none
makes a socket, a process, a thread or a file name, sends or defers a signal, or looks at another process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

CALLS = {
    "read": (0, 63), "write": (1, 64), "open": (2, None), "close": (3, 57), "stat": (4, None),
    "fstat": (5, 80), "lstat": (6, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigreturn": (15, 139), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "access": (21, None),
    "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23),
    "nanosleep": (35, 101), "getpid": (39, 172), "exit": (60, 93), "uname": (63, 160), "getcwd": (79, 17),
    "readlink": (89, None), "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165),
    "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "sigaltstack": (131, 132), "gettid": (186, 178),
    "time": (201, None), "futex": (202, 98), "sched_getaffinity": (204, 123), "getdents64": (217, 61),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "exit_group": (231, 94), "openat": (257, 56), "newfstatat": (262, 79), "readlinkat": (267, 78),
    "faccessat": (269, 48), "getrandom": (318, 278), "statx": (332, 291), "faccessat2": (439, 439),
}  # fmt: skip
"""System calls a program may make: name → numbers on x86-64 and on 64-bit ARM. All others fail with EPERM."""
PRLIMIT, FCNTL = (302, 261), (72, 25)
"""Allowed with certain arguments only: limits may be read, descriptors copied and marked."""
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of CALLS, and the machine's number in `audit.h`."""
_FCNTL_COMMANDS = (0, 1, 2, 3, 1030)
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3


def instructions(machine: str) -> list[tuple[int, int, int, int]]:
    """
    The filter of system calls as classic BPF: (code, jump if true, jump if false, constant).

    >>> len(instructions("x86_64")) < 4096, instructions("aarch64")[1]
    (True, (21, 1, 0, 3221225655))
    """
    column, audit = MACHINES[machine]

    def only_if(value: int, then: int) -> list[tuple[int, int, int, int]]:
        return [(0x15, 0, 1, value), (0x06, 0, 0, then)]

    found = [(0x20, 0, 0, 4), (0x15, 1, 0, audit), (0x06, 0, 0, _KILL), (0x20, 0, 0, 0)]
    for numbers in CALLS.values():
        number = numbers[column]
        found += only_if(number, _ALLOW) if number is not None else []
    # The halves of the third argument, a pointer to new limits, must be null.
    limits = [(0x20, 0, 0, 32), (0x15, 0, 3, 0), (0x20, 0, 0, 36), (0x15, 0, 1, 0), (0x06, 0, 0, _ALLOW)]
    commands = [(0x20, 0, 0, 24)] + [step for one in _FCNTL_COMMANDS for step in only_if(one, _ALLOW)]
    for numbers, block in ((PRLIMIT, limits), (FCNTL, commands)):
        found += [(0x15, 0, len(block) + 1, numbers[column]), *block, (0x06, 0, 0, _REFUSE)]
    return [*found, (0x06, 0, 0, _REFUSE)]


class Kernel:
    """The system calls that Python does not offer."""

    def __init__(self) -> None:
        """Load the C library of this process."""
        self.libc = ctypes.CDLL(None, use_errno=True)

    def call(self, number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
        """What the system call *number* returns. Raises OSError."""
        given = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
        result = int(self.libc.syscall(ctypes.c_long(number), *given))
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def control(self, option: int, *arguments: int | ctypes.Array[ctypes.c_char]) -> None:
        """`prctl(2)`. Raises OSError."""
        given = [ctypes.c_ulong(item) if isinstance(item, int) else item for item in arguments]
        given += [ctypes.c_ulong(0)] * (4 - len(given))
        if self.libc.prctl(option, *given) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def readable() -> Iterator[tuple[str, int]]:
    """Paths that a program may read, with rights: modules and shared objects, no installed packages."""
    for home in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        yield home, _READ_DIR
        for entry in os.scandir(home):
            if entry.name not in ("site-packages", "dist-packages"):
                yield entry.path, _READ_FILE
    with Path("/proc/self/maps").open() as maps:
        loaded = {line.split(maxsplit=5)[5].strip() for line in maps if "/" in line and ".so" in line}
    for folder in {str(Path(path).parent) for path in loaded}:
        for entry in os.scandir(folder):
            if ".so" in entry.name and entry.is_file():
                yield entry.path, _READ_FILE
    yield "/etc/ld.so.cache", _READ_FILE


def wall_files(kernel: Kernel) -> None:
    """Leave what `readable` names to read, and nothing to write, make or connect to. Raises OSError."""
    abi = kernel.call(444, None, 0, 1)
    rights = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        rights |= (1 << bit) if abi >= since else 0
    fields = [rights] + ([3] if abi >= 4 else []) + ([3] if abi >= 6 else [])
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    ruleset = kernel.call(444, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0)
    for path, right in readable():
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # What cannot be opened stays unreadable.
        rule = struct.pack("=Qi", right, opened)
        kernel.call(445, ruleset, 1, ctypes.create_string_buffer(rule, len(rule)), 0)
        os.close(opened)
    kernel.call(446, ruleset, 0)
    os.close(ruleset)


def wall_calls(kernel: Kernel, machine: str) -> None:
    """Leave the system calls of CALLS. Raises OSError."""
    steps = b"".join(struct.pack("HBBI", *step) for step in instructions(machine))
    program = ctypes.create_string_buffer(steps, len(steps))
    header = struct.pack("HxxxxxxQ", len(steps) // 8, ctypes.addressof(program))
    kernel.control(22, 2, ctypes.create_string_buffer(header, len(header)))


def set_limits(seconds: float, memory_mb: int) -> None:
    """Bound memory, processor time, what the report may hold, and open files."""
    import resource

    cpu = int(seconds) + 2
    for what, most in (
        (resource.RLIMIT_AS, memory_mb * 1_000_000),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, 4096),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def enclose(machine: str, seconds: float, memory_mb: int) -> None:
    """Take every right away for good. Raises OSError where a wall cannot be put up."""
    kernel = Kernel()
    # New user, network, IPC and host name spaces: a third wall, not offered everywhere.
    kernel.libc.unshare(0x10000000 | 0x40000000 | 0x08000000 | 0x04000000)
    kernel.control(38, 1)  # PR_SET_NO_NEW_PRIVS
    kernel.control(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    wall_files(kernel)
    kernel.control(4, 0)  # PR_SET_DUMPABLE; before, it would hide /proc/self from its owner
    header = struct.pack("Ii", 0x20080522, 0)
    nothing = ctypes.create_string_buffer(24)
    if kernel.libc.capset(ctypes.create_string_buffer(header, len(header)), nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    set_limits(seconds, memory_mb)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    wall_calls(kernel, machine)


def run(source: str) -> str:
    """The outcome of the program: `passed`, `memory` or `failed` with the name of what it raised."""
    space = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        exec(compile(source, "<program>", "exec", dont_inherit=True), space)  # noqa: S102 - behind the walls
    except MemoryError:
        return "memory"
    except BaseException as error:  # noqa: BLE001 - a program may raise anything, SystemExit too
        return f"failed {type(error).__name__[:100]}"
    return "passed"


def main(arguments: Sequence[str]) -> None:
    """Read what to run from stdin, run it, report, and end without a word of the program's own."""
    import json

    asked = json.load(sys.stdin)
    nonce, report, walls = asked["nonce"], asked["report"], asked["walls"]
    leave, write = os._exit, os.write
    sys.argv[:] = [""]
    try:
        enclose(arguments[0], asked["seconds"], asked["memory_mb"])
    except (OSError, ValueError) as error:
        write(walls, str(error).encode())
        leave(3)
    write(walls, b"up")
    os.close(walls)
    outcome = run(asked.pop("source"))
    write(report, f"{nonce} {outcome}\n".encode("ascii", "replace"))
    leave(0)


if __name__ == "__main__":
    main((platform.machine(),))
