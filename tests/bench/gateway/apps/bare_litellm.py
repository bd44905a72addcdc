"""Calls of the litellm SDK with nothing around them; prints what they cost as JSON."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import time
from typing import Any

from gateway.providers.litellm import OFFLINE


async def load(sdk: Any, asked: dict[str, Any], seconds: float, at_once: int) -> int:
    """How many calls ended within *seconds*."""
    end = time.monotonic() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < end:
            answer = await sdk.acompletion(**asked)
            if asked["stream"]:
                async for _chunk in answer:
                    pass
            done += 1

    await asyncio.gather(*(caller() for _ in range(at_once)))
    return done


def main() -> None:
    """One measurement after a second of warming up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", help="JSON: model, url, key, body, stream, seconds, at_once")
    job = json.loads(parser.parse_args().job)
    os.environ.update(OFFLINE)
    sdk: Any = importlib.import_module("litellm")
    sdk.telemetry, sdk.suppress_debug_info = False, True
    body = {name: value for name, value in job["body"].items() if name not in ("model", "stream")}
    asked = {
        "model": job["model"], "api_base": job["url"], "api_key": job["key"], "stream": job["stream"],
        "max_retries": 0, "num_retries": 0, **body,
    }  # fmt: skip
    asyncio.run(_measure(sdk, asked, job))


async def _measure(sdk: Any, asked: dict[str, Any], job: dict[str, Any]) -> None:
    await load(sdk, asked, 1.0, job["at_once"])
    before, began = time.process_time(), time.monotonic()
    calls = await load(sdk, asked, job["seconds"], job["at_once"])
    cpu_s, wall_s = time.process_time() - before, time.monotonic() - began
    print(json.dumps({"calls": calls, "cpu_us": cpu_s / calls * 1e6, "rps": calls / wall_s}))


if __name__ == "__main__":
    main()
