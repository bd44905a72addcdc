"""Guardrails: detectors as plug-ins, and the screens that act on what they find."""
