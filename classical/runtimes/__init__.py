"""Runtimes: what turns the bytes of a model into probabilities."""
