"""The hot path: plain functions over a compiled table; no web framework, no SQL."""
