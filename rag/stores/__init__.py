"""Vectors → nearest ids: one module per store, found through `sluicegate.stores`."""
