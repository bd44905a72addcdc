"""A data plane with one of everything, for clients to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from gateway.dataplane.table import Route, Target
from registry.entities import PromptContent, PromptMessage
from registry.templates import Render, compile_prompt
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, ListRetriever, Threshold, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.toolserver import Seen, sdk_serving, tool_server
from tests.fakes.upstream import MODEL, upstream


def _prompt() -> Render:
    message = PromptMessage("user", "Kindly: {{ question }}")
    return compile_prompt(PromptContent((message,), {"question": "text"}))


@contextmanager
def plane() -> Iterator[Stand]:
    """
    `support` chats, `kind` has a prompt, `books` has an index, `churn` predicts, `vllm/tiny` goes straight to
    the upstream; `things` is another server's tools.
    """
    with upstream() as up:
        provider = provider_at(up.url)
        routes = {
            "support": Route(name="support", digest=DIGEST, model=MODEL, provider=provider),
            "books": Route(name="books", digest=DIGEST, retriever=ListRetriever(())),
            "kind": Route(
                name="kind", digest=DIGEST, model=MODEL, provider=provider, render=_prompt(),
                variables=frozenset({"question"}),
            ),
            "churn": Route(name="churn", digest=DIGEST, kind="prediction", predictor=Threshold()),
        }  # fmt: skip
        direct = Target(Route(name="vllm/*", model=MODEL, provider=provider))
        table = table_of(routes)
        versions = dict.fromkeys(("churn:1", f"churn@{DIGEST}"), Target(routes["churn"]))
        table = replace(table, targets={**table.targets, **versions})
        sources = FixedSources(table, directs={"vllm/tiny": direct})
        stand = Stand("", up)
        with sdk_serving(Seen()) as tools:
            servers = {"things": tool_server(tools, patterns=("add", "fail"))}
            made = DataPlane(sources, stand.records.append, default_predict="churn", tool_servers=servers)
            with serving(made) as url:
                stand.url = url
                yield stand
                stand.client.close()
