"""Sluicegate's memory: immutable versions, releases, evidence, and the aliases they move."""
