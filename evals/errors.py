"""
Errors of evals.

    PlatformError
    └── EvalsError
        ├── BadSuite              the suite asks for something that cannot be judged
        ├── BadDataset            a sample is malformed, or lacks what a check needs
        ├── KeyMissing            no API key for the gateway was given
        ├── KeyRefused            the gateway does not accept the key
        ├── GatewayUnreachable    nothing answers at the gateway's address
        ├── ReleaseNotServed      the gateway does not serve the release
        ├── ReleaseMoved          the gateway answered with other bytes than those judged
        ├── BadAnswer             an answer has not the shape its API promises
        ├── ScoreFailed           one output has no score: a judge broke, or a metric is undefined
        ├── JudgeUnavailable      no endpoint or key for a judge's model
        ├── CostCapReached        the next call would cost more than the run may
        ├── TargetUnavailable     a callable or recorded outputs cannot be loaded
        └── CacheUnavailable      the cache of outputs cannot be read or written

All end a run with exit code 3, except BadAnswer and ScoreFailed: those are counted.
"""

from __future__ import annotations

from registry.errors import PlatformError


class EvalsError(PlatformError):
    """The evaluation could not be made."""

    code = "evals_error"


class BadSuite(EvalsError):
    """The suite asks for something that cannot be judged. `evals validate` checks a suite."""

    code = "bad_suite"


class BadDataset(EvalsError):
    """The dataset is malformed. Each sample is one JSON object with a unique `id`."""

    code = "bad_dataset"


class KeyMissing(EvalsError):
    """No API key. Make one with `gateway keys create`, then set SLUICEGATE_API_KEY or pass --key."""

    code = "key_missing"


class KeyRefused(EvalsError):
    """The gateway refused the API key. Make one that may call this release: `gateway keys create`."""

    code = "key_refused"


class GatewayUnreachable(EvalsError):
    """The gateway does not answer. Start it with `gateway serve`, or name it with --gateway."""

    code = "gateway_unreachable"


class ReleaseNotServed(EvalsError):
    """The gateway does not serve this release. Ask its /health/ready for the reason."""

    code = "release_not_served"


class ReleaseMoved(EvalsError):
    """The gateway answered from another release than the one being judged. Run again."""

    code = "release_moved"


class BadAnswer(EvalsError):
    """The gateway's answer has not the shape its API promises."""

    code = "bad_answer"


class ScoreFailed(EvalsError):
    """One output could not be scored; *kind* is a stable code. Counted as an error, never as a score."""

    code = "score_failed"

    def __init__(self, kind: str, message: str = "") -> None:
        """Remember *kind*, such as `judge_timeout`; *message* holds no text of prompts or answers."""
        super().__init__(message or kind)
        self.kind = kind


class JudgeUnavailable(EvalsError):
    """A judge cannot be asked. Set its provider's key and address, or name it with --judge-url."""

    code = "judge_unavailable"


class CostCapReached(EvalsError):
    """The next call does not fit under --max-cost. What was paid for is kept; raise it and run again."""

    code = "cost_cap_reached"


class TargetUnavailable(EvalsError):
    """What is to be judged cannot be loaded: a Python callable or recorded outputs."""

    code = "target_unavailable"


class CacheUnavailable(EvalsError):
    """The cache of outputs cannot be used. Delete <home>/evals-cache or run with --no-cache."""

    code = "cache_unavailable"
