"""Inference engines as the gateway starts, watches and describes them."""
