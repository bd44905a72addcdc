"""Providers: plug-ins that speak to one upstream each."""
