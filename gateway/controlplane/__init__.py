"""What the registry says, compiled for the data plane; health and metrics."""
