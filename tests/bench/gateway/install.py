"""Fetches the peers by name, from Debian, PyPI and npm, into one cache folder; nothing needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from registry.errors import PlatformError

_LIMIT_S = 900


class NotInstalled(PlatformError):
    """A contender cannot be had here."""

    code = "not_installed"


def run(command: Sequence[str], *, cwd: Path | None = None) -> str:
    """
    What *command* printed.

    Raises:
        NotInstalled: it is missing, failed or took longer than 15 minutes.
    """
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{command[0]}: {error}") from error
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no output"]
        raise NotInstalled(f"`{' '.join(command)}` failed: {told[-1][:300]}")
    return done.stdout


def venv(folder: Path, requirements: Sequence[str]) -> Path:
    """The interpreter of a virtual environment in *folder* that holds *requirements*; made when absent."""
    python = folder / "bin" / "python"
    wanted = "\n".join(requirements)
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(requirements)} into {folder}", file=sys.stderr)
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        run([str(python), "-m", "pip", "install", "--quiet", *requirements])
        stamp.write_text(wanted)
    return python


def debian(program: str, packages: Sequence[str], cache: Path) -> list[str]:
    """
    The command that starts *program*: the machine's own, or Debian's *packages* unpacked under *cache*.

    Unpacking needs no root and starts no service.
    """
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found:
        return [found]
    folder = cache / f"debian-{program}"
    stamp = folder / "installed.txt"
    if not stamp.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"downloading {', '.join(packages)} into {folder}", file=sys.stderr)
        try:
            run(["apt-get", "download", *packages], cwd=folder)
        except NotInstalled:
            if os.geteuid():
                raise
            run(["apt-get", "update", "-q"])
            run(["apt-get", "download", *packages], cwd=folder)
        for archive in folder.glob("*.deb"):
            run(["dpkg", "-x", str(archive), str(folder / "root")])
        stamp.write_text("\n".join(packages))
    root = folder / "root"
    for candidate in (root / "usr/bin" / program, root / "usr/sbin" / program):
        if candidate.exists():
            libraries = ":".join(str(path) for path in root.glob("usr/lib/*-linux-*"))
            return ["env", f"LD_LIBRARY_PATH={libraries}", str(candidate)]
    raise NotInstalled(f"the packages {', '.join(packages)} hold no {program}")


def npm(folder: Path, manifest: str) -> Path:
    """*folder* after `npm install` of *manifest*, the text of a package.json."""
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != manifest:
        print(f"npm install into {folder}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(manifest)
        run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)
        stamp.write_text(manifest)
    return folder
