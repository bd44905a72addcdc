"""What each peer is given, and how its cost is taken."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """Where the endpoint is (ends in /v1), and how much to do of what."""

    url: str
    rows: int
    concurrency: int
    program: str = ""


def asked(description: str) -> Work:
    """The work the command line asks for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("url")
    parser.add_argument("rows", type=int)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("--program", default="", help="path of the peer's program, where it is one")
    given = parser.parse_args()
    return Work(given.url, given.rows, given.concurrency, given.program)


def measure(work: Work, run: Callable[[], int], *, children: bool = False) -> None:
    """
    Print what *run*, which returns how many rows failed, took: imports and start of this process excluded.

    Args:
        children: the CPU is that of child processes that ended, for peers that are programs.
    """
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    before, start = resource.getrusage(who), time.perf_counter()
    errors = run()
    seconds, after = time.perf_counter() - start, resource.getrusage(who)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    found = {"rows": work.rows, "seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "errors": errors}
    print(json.dumps(found))
