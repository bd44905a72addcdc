"""Datasets from traces, other datasets and corpora, with what was done to each row written down."""
