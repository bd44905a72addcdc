"""LlamaIndex' class for OpenAI's models."""

from __future__ import annotations

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI

from tests.clients.rows.expected import ARGUMENTS
from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import Stand

NAME, PACKAGE = "LlamaIndex (`OpenAI`)", "llama-index-llms-openai"
ASKED = [ChatMessage(role="user", content="What is it?")]


class Model(OpenAI):
    """Takes any model's name: the class looks up the context of OpenAI's own."""

    @property
    def metadata(self):  # type: ignore[no-untyped-def]
        """What LlamaIndex wants to know of a model."""
        from llama_index.core.llms import LLMMetadata

        return LLMMetadata(
            context_window=8192, num_output=256, is_chat_model=True, is_function_calling_model=True,
            model_name=self.model,
        )  # fmt: skip


def model(stand: Stand) -> Model:
    return Model(model="support", api_base=f"{stand.url}/v1", api_key=CLIENT_KEY, max_retries=0, timeout=10)


def plain(stand: Stand) -> None:
    assert model(stand).chat(ASKED).message.content == "forty two"


def stream(stand: Stand) -> None:
    assert [part.message.content for part in model(stand).stream_chat(ASKED)][-1] == "forty two"


def tools(stand: Stand) -> None:
    def weather(city: str) -> str:
        """Tell the weather in a city."""
        return f"Rain in {city}."

    stand.up.answer = ARGUMENTS
    llm = model(stand)
    answer = llm.chat_with_tools([FunctionTool.from_defaults(weather)], "The weather in Oslo?")
    calls = llm.get_tool_calls_from_response(answer)
    assert [(call.tool_name, call.tool_kwargs) for call in calls] == [("weather", {"city": "Oslo"})]


TRIALS = {"plain": plain, "stream": stream, "tools": tools}
