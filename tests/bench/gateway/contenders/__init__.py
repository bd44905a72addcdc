"""The gateways that are measured: each file installs one by name, starts it and says how to call it."""
