"""Other registries: what can be brought in from them, and what they can be given."""
