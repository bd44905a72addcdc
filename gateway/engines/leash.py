"""
Run a command that does not outlive its parent: `leash.py PARENT_PID COMMAND ARGUMENT…`.

On Linux the kernel sends SIGTERM to the command when its parent dies, however it dies, so that no orphan
keeps the GPU; the thread that started it counts as the parent. Elsewhere the command merely runs. Standard
library only: it is started by its path.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127


def main(argv: Sequence[str]) -> None:
    """Become the command *argv[1:]*, tied to the parent *argv[0]*; exits with 127 where there is none."""
    parent, *command = argv
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit("the parent died first")
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be run: {error.strerror}\n")
        sys.exit(_NOT_FOUND)


if __name__ == "__main__":
    main(sys.argv[1:])
