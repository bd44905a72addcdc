"""Judges: models that score answers, held to what people said."""
