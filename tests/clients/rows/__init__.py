"""One module for each client: what it claims, and how that is tried."""
