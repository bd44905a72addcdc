"""What can be judged: releases behind the gateway, other endpoints, Python callables, recorded outputs."""
