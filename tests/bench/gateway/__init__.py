"""
Speed, collapse and soak of the gateway beside its peers, interleaved on one machine.

    python -m tests.bench.gateway --help
"""
