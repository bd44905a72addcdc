"""Measurements that anyone can repeat; pytest collects only the tests of their pieces."""
