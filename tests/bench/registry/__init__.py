"""
Speed of the registry at scale: `python -m tests.bench.registry`.

100,000 versions and 1,000,000 audit records, written by the registry's own services; then what people and the
gateway ask of it, the check of the whole chain, and a hundred writers at once.
"""
