"""Systems under test: how to ask a release, and what its answer means. Plug-ins of `sluicegate.systems`."""
