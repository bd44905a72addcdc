"""Against a real vLLM on this machine's processor: `make vllm`. Skipped where it is not installed."""
