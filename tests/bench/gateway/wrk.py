"""Runs `wrk`, the load generator written in C, with one fixed request, and reads its summary."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import PlatformError

_SCRIPT = """
wrk.method = "POST"
wrk.body = {body}
{headers}
function done(summary, latency, requests)
  io.write("RESULT " .. string.format(
    '{{"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"not_200":%d,"socket_errors":%d}}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout) .. "\\n")
end
"""


class LoadFailed(PlatformError):
    """A load generator ended without a result, or took too long."""

    code = "load_failed"


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What wrk counted; `requests` includes those answered with an error status."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    not_200: int
    socket_errors: int


def lua_text(text: str) -> str:
    r"""
    *text* as a Lua string literal.

    >>> lua_text('a "b"\n')
    '"a \\"b\\"\\10"'
    """
    return (
        '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\13").replace("\n", "\\10") + '"'
    )


def run(
    command: Sequence[str], url: str, headers: dict[str, str], body: str, *,
    connections: int, seconds: float, folder: Path, cores: str = "1", nice: int = 0,
) -> WrkResult:  # fmt: skip
    """POST *body* over *connections* keep-alive connections from one thread pinned to *cores*."""
    lines = "\n".join(f"wrk.headers[{lua_text(key)}] = {lua_text(value)}" for key, value in headers.items())
    script = folder / "post.lua"
    script.write_text(_SCRIPT.format(body=lua_text(body), headers=lines))
    done = subprocess.run(
        [
            "taskset", "-c", cores, "nice", "-n", str(nice), *command, "-t1", f"-c{connections}",
            f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(script), url,
        ],
        capture_output=True, text=True, timeout=seconds + 60, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return WrkResult(**json.loads(line.removeprefix("RESULT ")))
    message = f"wrk exit {done.returncode}: {(done.stderr or done.stdout)[-400:]}"
    raise LoadFailed(message)
