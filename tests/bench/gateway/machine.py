"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from registry.clock import to_text, utc_now


def facts() -> dict[str, str]:
    """Date, command, processor, cores, load, kernel and Python of this run."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    words = ["python -m tests.bench.gateway", *sys.argv[1:]]
    return {
        "date": to_text(utc_now())[:16].replace("T", " ") + " UTC",
        "command": " ".join(words),
        "processor": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
