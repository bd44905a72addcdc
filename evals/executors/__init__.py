"""Executors: where and how many at once the calls of a run are made."""
