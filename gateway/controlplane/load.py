"""How each part of a release is made ready, in threads where it blocks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from gateway.controlplane.parts import Part, Parts
from gateway.controlplane.upstreams import options_for, reference_of
from gateway.dataplane.table import Embedder
from gateway.errors import UnknownModel
from gateway.providers.base import Provider
from gateway.providers.rotating import RotatingKey
from gateway.settings import GatewaySettings, ReplicaSettings
from registry import plugins, secrets
from registry.entities import IndexContent, ModelContent, PromptContent, ReleaseContent, ServedRelease
from registry.errors import BadSettings
from registry.templates import compile_prompt
from registry.workspace import Workspace

T = TypeVar("T")
_EMBEDDING_PROVIDERS = frozenset({"extractive"})
"""Providers that answer with the embedder of the release's index."""
_ONLY_IN_RELEASES = frozenset({"extractive"})
_WITHOUT_PLACES = frozenset({"extractive", "llamacpp"})
"""Providers that run inside the gateway, so there is nothing elsewhere to spread requests over."""
_DIRECT_NAME = re.compile(r"[A-Za-z0-9][\w.:@+-]*(/[A-Za-z0-9][\w.:@+-]*)*", re.ASCII)
_MAX_NAME = 200


class Loader:
    """Asks for the parts of releases and of models called directly; equal parts are made once."""

    def __init__(
        self,
        settings: GatewaySettings,
        workspace: Workspace,
        parts: Parts,
        executor: Executor,
        environ: Mapping[str, str],
        store: str,
    ) -> None:
        """
        Blocking work runs in *executor*; indexes are opened with the plug-in *store*.

        Raises:
            BadSettings: replicas or fallbacks of *settings* that could never be asked.
        """
        self._settings = settings
        self._workspace = workspace
        self._parts = parts
        self._executor = executor
        self._environ = environ
        self._store = store
        self._keys: dict[str, RotatingKey] = {}
        self._providers = frozenset(plugins.names("providers"))
        self._embedders = frozenset(plugins.names("embedders"))
        self._check_settings()

    def parts_of(self, served: ServedRelease) -> dict[str, Part]:
        """The parts that *served* stands on, by what they are; new ones begin to load."""
        content = served.content
        if served.model is not None:
            return {"model": self._predictor(served.model, content.model_digest)}
        found: dict[str, Part] = {}
        if served.index is not None and served.index_digest is not None:
            found["index"] = self._retriever(served.index, served.index_digest)
        if served.prompt is not None:
            found["prompt"] = self._prompt(served.prompt, content.prompt, served.partials)
        for variant in content.variants or ():
            shown = served.variants[variant.name]
            found[f"variant {variant.name}"] = self._prompt(shown, variant.prompt, served.partials)
        if served.guardrails is not None:
            policy = served.guardrails
            found["guardrails"] = self._parts.get(
                ("guardrails", content.guardrails), lambda: self._in_thread(_compile_policy, policy)
            )
        return found

    def _prompt(self, content: PromptContent, digest: str | None, partials: Mapping[str, str]) -> Part:
        return self._parts.get(
            ("prompt", digest),
            lambda: self._in_thread(compile_prompt, content, partials),
        )

    def places(
        self, content: ReleaseContent, index: Part | None, own: str = ""
    ) -> list[list[tuple[str, str, float, Part]]]:
        """
        Tiers of (label, `provider/model`, weight, provider part): its own model, then its fallbacks.

        Args:
            own: name of a use that shares neither connections nor breakers with any other.
        """
        tiers = [self._tier(content.model, content.model_digest, index, own)]
        return tiers + [self._tier(fallback, own=own) for fallback in content.fallbacks]

    def direct_places(self, model: str) -> list[list[tuple[str, str, float, Part]]]:
        """The same for a model that a client named itself; see `direct` for what is refused."""
        self.direct(model)
        return [self._tier(name) for name in (model, *self._settings.fallbacks.get(model, ()))]

    def _check_settings(self) -> None:
        for name, upstream in self._settings.upstreams.items():
            if upstream.replicas and name in _WITHOUT_PLACES:
                message = f"gateway.upstreams.{name}.replicas: {name} runs inside the gateway; remove them"
                raise BadSettings(message)
        askable = self._providers - _ONLY_IN_RELEASES
        for model, others in self._settings.fallbacks.items():
            for named in (model, *others):
                name, slash, inner = named.partition("/")
                if name not in askable or not slash or not inner:
                    known = ", ".join(f"{provider}/…" for provider in sorted(askable))
                    message = f"gateway.fallbacks: {named!r} is not a provider/model; there are: {known}"
                    raise BadSettings(message)
            if len({model, *others}) <= len(others):
                message = f"gateway.fallbacks: {model!r} names a model twice or falls back to itself"
                raise BadSettings(message)

    def _tier(
        self, model: str, model_digest: str | None = None, index: Part | None = None, own: str = ""
    ) -> list[tuple[str, str, float, Part]]:
        name = model.partition("/")[0]
        label = f"{name}#{own}" if own else name
        upstream = self._settings.upstreams.get(name)
        tier = [(label, model, 1.0, self.provider(model, model_digest, index, own=own))]
        for number, replica in enumerate(upstream.replicas if upstream else (), start=2):
            part = self.provider(model, model_digest, index, replica, own=own)
            tier.append((f"{label}#{number}", model, replica.weight, part))
        return tier

    def provider(
        self,
        model: str,
        model_digest: str | None = None,
        index: Part | None = None,
        replica: ReplicaSettings | None = None,
        *,
        own: str = "",
    ) -> Part:
        """The provider of `provider/model`; one that needs no embedder is shared by all releases."""
        name, _, inner = model.partition("/")
        if name not in _EMBEDDING_PROVIDERS:
            index = None

        async def make() -> Provider:
            retriever = await index.wait() if index is not None else None
            options = await self._in_thread(
                partial(
                    options_for,
                    name,
                    self._settings,
                    self._environ,
                    home=self._workspace.settings.home,
                    model_digest=model_digest,
                    embed=retriever.embedder.embed if retriever is not None else None,
                    replica=replica,
                    resolve=self._secret,
                )
            )
            reference = reference_of(name, self._settings, replica)
            if reference is not None and options.api_key is not None:
                options = replace(options, rotating=self._rotating(reference, options.api_key))
            build: Any = await self._in_thread(plugins.load, "providers", name)
            provider: Provider = await self._in_thread(build, inner, options)
            try:
                await provider.start()
            except BaseException:
                await provider.close()
                raise
            return provider

        key = ("provider", model, model_digest, index.key if index is not None else None, replica, own)
        return self._parts.get(key, make, lambda provider: provider.close())

    def _secret(self, reference: str, environ: Mapping[str, str]) -> str:
        """The secret; of one that is in use already, its last known value."""
        known = self._keys.get(reference)
        return known.known if known is not None else secrets.resolve(reference, environ)

    def _rotating(self, reference: str, value: str) -> RotatingKey:
        """The key of that reference, one for all providers that use it."""
        known = self._keys.get(reference)
        if known is None:
            fetch = partial(secrets.resolve, reference, self._environ)
            known = self._keys[reference] = RotatingKey(reference, value, fetch)
        return known

    def direct(self, model: str) -> Part:
        """
        The provider of a model that a client named itself.

        Raises:
            UnknownModel: no such provider, one that only answers for releases, or a name that could
                be a file.
        """
        name, _, inner = model.partition("/")
        if name in self._embedders:
            message = f"{model[:_MAX_NAME]!r} is an embedder; call it with /v1/embeddings"
            raise UnknownModel(message, param="model")
        if name not in self._providers or name in _ONLY_IN_RELEASES:
            known = ", ".join(f"{known}/…" for known in sorted(self._providers - _ONLY_IN_RELEASES))
            message = f"no provider {name[:64]!r} for {model[:_MAX_NAME]!r}; there are: {known}"
            raise UnknownModel(message, param="model")
        is_file = inner.lower().endswith(".gguf") or ".." in inner
        if len(model) > _MAX_NAME or is_file or not _DIRECT_NAME.fullmatch(inner):
            message = f"{model[:_MAX_NAME]!r} is not a model name; files are served through a release"
            raise UnknownModel(message, param="model")
        return self.provider(model)

    def embedder(self, model: str) -> Part | None:
        """The local embedder `NAME/…`; None when no embedder has that name."""
        name = model.partition("/")[0]
        if name not in self._embedders:
            return None
        home = self._workspace.settings.home

        async def make() -> Embedder:
            load: Any = await self._in_thread(plugins.load, "embedders", name)
            cache = home / "models"
            embedder: Embedder = await self._in_thread(lambda: load(cache, threads=self._settings.threads))
            return embedder

        return self._parts.get(("embedder", name), make)

    def _retriever(self, content: IndexContent, digest: str) -> Part:
        workspace, threads, store = self._workspace, self._settings.threads, self._store

        def open_index() -> Any:  # noqa: ANN401 - the package is imported when an index is
            from rag.retrieve import open_retriever

            return open_retriever(
                content,
                digest,
                home=workspace.settings.home,
                artifacts=workspace.artifacts,
                threads=threads,
                store=store,
            )

        return self._parts.get(
            ("index", digest),
            lambda: self._in_thread(open_index),
            lambda retriever: self._in_thread(retriever.close),
        )

    def _predictor(self, content: ModelContent, digest: str | None) -> Part:
        artifacts, threads = self._workspace.artifacts, self._settings.threads

        def load_model() -> Any:  # noqa: ANN401 - the package is imported when a model is
            from classical.predict import load_predictor

            predictor = load_predictor(content, artifacts, threads=threads)
            predictor.warm()
            return predictor

        return self._parts.get(("model", digest), lambda: self._in_thread(load_model))

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _compile_policy(policy: Any) -> Any:  # noqa: ANN401 - detectors are imported when a policy is
    from gateway.guardrails.policy import compile_policy

    return compile_policy(policy)
