"""Classical models: from params.yaml and a table to a registered, pickle-free ModelVersion."""
