"""What running evaluations costs, beside other frameworks on the same work: `python -m tests.bench.evals`."""
