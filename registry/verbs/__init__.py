"""
What can be done with a registry: one function for each verb, the same behind command line and HTTP API.

A function takes the Session of who asks and plain arguments, opens the one transaction it needs under the
name of its verb, and returns plain JSON: what `--json` prints is what the API answers.
"""

from __future__ import annotations

from registry.verbs.session import Session, session

__all__ = ["Session", "session"]
