"""`python -m tests.bench.registry.chain HOME [URL]`: what checking a whole chain takes, as JSON."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from registry import audit_verify
from registry.settings import RegistrySettings
from registry.workspace import open_workspace


@dataclass(frozen=True, slots=True)
class Checked:
    """What `audit verify` said, and what it took."""

    ok: bool
    records: int
    rows: int
    """How many rows were compared with the chain."""
    seconds: float
    rss_before_mb: float
    """Of the process with the registry open."""
    rss_peak_mb: float

    @property
    def records_per_s(self) -> float:
        """Records checked in a second, the comparison of the rows included."""
        return self.records / self.seconds


def check(settings: RegistrySettings) -> Checked:
    """Verify the chain of a registry in a process of its own."""
    words = [sys.executable, "-m", "tests.bench.registry.chain", str(settings.home), settings.database_url]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=1800)
    return Checked(**json.loads(done.stdout))


def _main(home: str, url: str) -> None:
    with open_workspace(RegistrySettings(home=Path(home), database_url=url)) as workspace:
        with workspace.reading():
            before = _peak_mb()
        begun = time.perf_counter()
        with workspace.reading() as connection:
            said = audit_verify.verify(connection)
        seconds = time.perf_counter() - begun
    answer = {name: said[name] for name in ("ok", "records", "rows")}
    answer |= {"seconds": seconds, "rss_before_mb": before, "rss_peak_mb": _peak_mb()}
    print(json.dumps(answer))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
