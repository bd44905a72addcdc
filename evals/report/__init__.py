"""A finished run for machines, people, pull requests and CI."""
