"""What the upstream is told to answer, and what clients are to make of it."""

from __future__ import annotations

from typing import Any

ARGUMENTS = '{"city": "Oslo"}'
"""Of one tool call."""
CITY = '{"name": "Oslo", "people": 717710}'
"""A structured answer."""
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
