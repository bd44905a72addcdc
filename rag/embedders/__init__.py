"""Texts → vectors: one module per embedder, found through `sluicegate.embedders`."""
