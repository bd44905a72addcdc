"""
Errors of engines, under those of the gateway.

    UpstreamError
    ├── EngineFailed         it does not serve, and starting it again has not helped or cannot help
    └── EngineNotReady       it is still loading, or between two starts
    UpstreamBroken
    └── MetricsUnreadable    what it publishes is no text of Prometheus, or not vLLM's
"""

from __future__ import annotations

from gateway.errors import UpstreamBroken, UpstreamError


class EngineFailed(UpstreamError):
    """The engine does not serve. Its log says why; start it again when that is mended."""

    code = "engine_failed"


class EngineNotReady(UpstreamError):
    """The engine does not answer yet. Try again in a moment."""

    code = "engine_not_ready"


class MetricsUnreadable(UpstreamBroken):
    """The engine's metrics cannot be read."""

    code = "engine_metrics_unreadable"
