"""Metrics: what an output scores. Plug-ins of `sluicegate.metrics`."""
