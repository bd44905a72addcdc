"""
The smallest fair application around TensorZero's embedded gateway.

It runs in an environment of its own (`uvicorn --factory tensorzero_app:build`), so it imports nothing
of this repository. Annotations are evaluated here and now, since FastAPI reads them off the route.
"""

import json
import os
from collections.abc import AsyncIterator
from typing import Any


def build() -> Any:
    """The application; reads BENCH_CONFIG and BENCH_CLIENT_KEY."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response, StreamingResponse
    from tensorzero import AsyncTensorZeroGateway  # type: ignore[import-not-found]  # in its own environment

    gateway = AsyncTensorZeroGateway.build_embedded(config_file=os.environ["BENCH_CONFIG"], async_setup=False)
    allowed = f"Bearer {os.environ['BENCH_CLIENT_KEY']}"
    application = FastAPI()

    async def chat(request: Request) -> Response:
        if request.headers.get("authorization") != allowed:
            return JSONResponse({"error": {"message": "unknown key"}}, 401)
        body = json.loads(await request.body())
        system = [message["content"] for message in body["messages"] if message["role"] == "system"]
        turns = [message for message in body["messages"] if message["role"] != "system"]
        prompt = {"messages": turns} | ({"system": system[0]} if system else {})
        stream = body.get("stream") is True
        answer = await gateway.inference(model_name=body["model"], input=prompt, stream=stream)
        if stream:
            return StreamingResponse(_events(answer), media_type="text/event-stream")
        text = "".join(block.text for block in answer.content)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return JSONResponse(
            {
                "id": str(answer.inference_id), "object": "chat.completion", "model": body["model"],
                "choices": [choice], "usage": _usage(answer.usage),
            }
        )  # fmt: skip

    application.post("/v1/chat/completions", response_model=None)(chat)
    return application


async def _events(chunks: AsyncIterator[Any]) -> AsyncIterator[str]:
    async for chunk in chunks:
        text = "".join(block.text for block in chunk.content)
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        event: dict[str, Any] = {
            "id": str(chunk.inference_id), "object": "chat.completion.chunk", "choices": [choice],
        }  # fmt: skip
        if chunk.usage is not None:
            event["usage"] = _usage(chunk.usage)
        yield f"data: {json.dumps(event)}\n\n"
    yield "data: [DONE]\n\n"


def _usage(usage: Any) -> dict[str, int]:
    return {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
