"""The running gateway's view of the registry: followed by polling, kept when the registry is gone."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from gateway.controlplane.compile import Compiler
from gateway.controlplane.lastgood import LastGood
from gateway.controlplane.parts import Key, Part, Parts
from gateway.dataplane.balance import Upstream
from gateway.dataplane.table import Embedder, InFlight, Route, RouteTable, Target
from gateway.errors import NotReady
from gateway.settings import GatewaySettings
from registry import db, snapshot
from registry.clock import Clock, to_text, utc_now
from registry.entities import ServedRelease, Snapshot
from registry.errors import StoreUnavailable
from registry.workspace import Workspace

_MAX_DIRECT = 64
"""Models called directly that stay open; the one longest unused makes room."""
_log = logging.getLogger(__name__)


class Live:
    """The current table and what keeps it current. Owned by one event loop."""

    def __init__(
        self, settings: GatewaySettings, workspace: Workspace, store: str = "chroma", clock: Clock = utc_now
    ) -> None:
        """Nothing runs before `start`."""
        self._clock = clock
        self._last_good = LastGood(workspace.settings.home / "run" / "last-known-good.json")
        self.kept_at: datetime | None = None
        """When what is served was written down, if it was not read from the registry since the start."""
        self.table = RouteTable()
        self.registry_error: str | None = "not read yet"
        """Why the registry could not be read last time; None when it could."""
        self._settings = settings
        self._workspace = workspace
        self._parts = Parts(self._swap, settings.unused_grace_s)
        self._compiler = Compiler(settings, workspace, self._parts, store)
        self._snapshot: Snapshot | None = None
        self._wanted: frozenset[Key] = frozenset()
        self._direct: OrderedDict[str, Part] = OrderedDict()
        self._targets: dict[str, Target] = {}
        """Models called directly whose every part is loaded."""
        self._in_flight: dict[str, InFlight] = {}
        """Model called directly → its running requests; none of its parts is closed while there are any."""
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="gateway-registry")
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the registry was read once and every release in production can answer."""
        return self._snapshot is not None and not self.unready()

    @property
    def reached(self) -> bool:
        """
        Whether the registry was read since the start.

        Until then nobody else here may open it: where its file was lost, that would make an empty one.
        """
        return self._snapshot is not None and self.kept_at is None

    def unready(self) -> list[Target]:
        """The releases in production that cannot answer now."""
        productions = [name for name, alias in self.table.aliases if alias == "production"]
        targets = [self.table.targets[name] for name in productions if name in self.table.targets]
        return [target for target in targets if not is_ready(target.route)]

    def served(self, digest: str) -> ServedRelease | None:
        """The release with this digest, where what is served was read with it."""
        found = self._snapshot.releases if self._snapshot is not None else ()
        return next((one for one in found if one.version.digest == digest), None)

    async def start(self) -> None:
        """Read the registry once, then follow it. A registry that cannot be read is tried again."""
        await self._refresh()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following and close every part."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._parts.close()
        self._compiler.close()
        self._reader.shutdown(wait=True)

    def known(self, model: str) -> Target | None:
        """The target of a `provider/model` that was used before, if all its parts are there still."""
        target = self._targets.get(model)
        if target is not None:
            self._direct.move_to_end(model)
        return target

    async def direct(self, model: str) -> Target:
        """
        A target for `provider/model`, constructed at its first use.

        Raises:
            UnknownModel: no such provider, or a name that no client may choose.
            NotReady: the provider cannot be made; the log says why.
        """
        known = self.known(model)
        if known is not None:
            return known
        places = self._compiler.load.direct_places(model)
        parts = [place[-1] for tier in places for place in tier]
        for number, part in enumerate(parts):
            self._remember(model if not number else f"{model} {number}", part)
        for part in parts:
            await part.settled()
        balance = self._compiler.balances.of(places)
        if balance is None:
            message = f"{model!r} cannot be called: {parts[0].problem}"
            raise NotReady(message)
        provider, _, name = model.partition("/")
        first = balance.upstreams()[0].provider
        in_flight = self._in_flight.setdefault(model, InFlight())
        for part in parts:
            part.users.add(in_flight)
        route = Route(name=f"{provider}/*", model=name, provider=first, balance=balance, in_flight=in_flight)
        target = Target(route)
        if all(part.loaded for part in parts):
            self._targets[model] = target
        return target

    async def embedder(self, model: str) -> Embedder | None:
        """The local embedder that `minilm/…` names; None when *model* names none."""
        part = self._compiler.load.embedder(model)
        if part is None:
            return None
        self._remember(f"embedder {part.key[1]}", part)
        await self._loaded(part, model)
        embedder: Embedder = part.value
        return embedder

    @property
    def upstreams(self) -> Sequence[Upstream]:
        """Every upstream in use, for metrics and health."""
        return self._compiler.balances.upstreams()

    def _remember(self, name: str, part: Part) -> None:
        self._direct[name] = part
        self._direct.move_to_end(name)
        while len(self._direct) > _MAX_DIRECT:
            gone, _ = self._direct.popitem(last=False)
            self._targets.pop(gone.partition(" ")[0], None)
            self._in_flight.pop(gone, None)

    async def _loaded(self, part: Part, model: str) -> None:
        if not part.loaded:
            await part.settled()
        if part.problem is not None:
            message = f"{model!r} cannot be called: {part.problem}"
            raise NotReady(message)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._settings.refresh_interval_s)
            await self._refresh()
            await self._parts.sweep(self._wanted | {part.key for part in self._direct.values()})

    async def _refresh(self) -> None:
        """One look at the registry; the old table stays when it fails."""
        known = self._snapshot.revision if self._snapshot is not None else None
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._reader, self._read, known)
        except Exception as error:  # noqa: BLE001 - whatever fails, what is served stays
            if self.registry_error != str(error):
                _log.warning("the registry cannot be read, serving what was read before: %s", error)
            self.registry_error = str(error)
            if self._snapshot is None:
                await self._fall_back()
            return
        if self.registry_error is not None and known is not None:
            _log.warning("the registry can be read again")
        self.registry_error = None
        self.kept_at = None
        if found is not None:
            before = self._snapshot.unproven if self._snapshot is not None else frozenset()
            for name, alias in sorted(found.unproven - before):
                _log.warning("%s@%s stands on no evidence: somebody broke the glass", name, alias)
            self._snapshot = found
            self._swap()
            await loop.run_in_executor(self._reader, self._keep, found)

    async def _fall_back(self) -> None:
        """Serve what was served before the last stop, until the registry can be read."""
        kept = await asyncio.get_running_loop().run_in_executor(self._reader, self._last_good.read)
        if kept is not None:
            self._snapshot, self.kept_at = kept
            _log.error("serving the last known good state, of %s", to_text(self.kept_at))
            self._swap()

    def _keep(self, found: Snapshot) -> None:
        try:
            self._last_good.write(found, self._clock())
        except OSError as error:
            _log.warning("the last known good state could not be kept: %s", error)

    def _read(self, known: int | None) -> Snapshot | None:
        database = make_path(self._workspace.settings.url)
        if database is not None and self._last_good.exists and not database.exists():
            message = f"{database} is gone, though this gateway has served from it; restore it"
            raise StoreUnavailable(message)
        with self._workspace.reading() as connection:
            if db.revision(connection) == known:
                return None
            before = self._snapshot.releases if self._snapshot is not None else ()
            return snapshot.read(connection, before)

    def _swap(self) -> None:
        if self._snapshot is None:
            return
        compiled = self._compiler.compile(self._snapshot, self.table)
        self.table, self._wanted = compiled.table, compiled.wanted


def make_path(url: str) -> Path | None:
    """The file of an SQLite database; None for any other."""
    scheme, separator, rest = url.partition(":///")
    path = rest.partition("?")[0]
    in_file = separator and scheme.startswith("sqlite") and path and not path.startswith((":", "file:"))
    return Path(path) if in_file else None


def is_ready(route: Route) -> bool:
    """Whether the route can answer now: its parts are loaded and one of its providers says so."""
    if route.problem is not None:
        return False
    if route.balance is None:
        return bool(provider_status(route).get("ready", True))
    return any(bool(upstream.provider.status().get("ready", True)) for upstream in route.balance.upstreams())


def is_left_alone(route: Route) -> bool:
    """Whether neither its classical model nor any of its upstreams may be asked now: breakers are open."""
    if route.breaker is not None:
        return route.breaker.wait_s(monotonic()) > 0
    return route.balance is not None and not route.balance.available()


def provider_status(route: Route) -> dict[str, Any]:
    """What the route's provider says about itself; empty where there is none."""
    return route.provider.status() if route.provider is not None else {}
