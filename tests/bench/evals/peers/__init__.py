"""Other frameworks with their own clients and runners; each prints what its rows took as JSON."""
