"""Sluicegate's gateway: every model behind one OpenAI-compatible API, at the release that evidence chose."""
