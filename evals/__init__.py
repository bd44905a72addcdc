"""evals judges: a suite of checks against a release, through the running gateway, with intervals."""
