"""A registry as large as it gets, written by its own services; kept between runs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, func, select

import registry
from registry import (
    audit,
    datasets,
    evaluations,
    evidence,
    promotion,
    prompts,
    releases,
    signing,
    suites,
    tables,
    versions,
)
from registry.audit import Entry
from registry.entities import PromptContent, PromptMessage, Version
from registry.refs import Ref
from registry.releases import ReleaseFile
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=5)
AT_ONCE = 5000
"""Pushes in one transaction."""
_WRITTEN_BY = ("audit.py", "evidence.py", "ids.py", "tables.py", "versions.py", "signing.py")
"""What decides what the rows look like."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    versions: int
    one_prompt: int
    """Versions of the prompt `big`."""
    names: int
    """Release names, each promoted three times."""
    releases: int
    """Releases of each name."""
    moves: int
    """Moves of `busy@production`."""
    audit: int


SCALES = {
    "full": Scale(100_000, 10_000, 300, 20, 5_000, 1_000_000),
    "small": Scale(3_000, 400, 20, 4, 100, 20_000),
    "tiny": Scale(250, 40, 3, 3, 12, 1_500),
}


@dataclass(frozen=True, slots=True)
class Stand:
    """The registry that is measured, and what files its evidence."""

    workspace: Workspace
    key: Ed25519PrivateKey
    suite: Version
    dataset: Version
    scale: Scale

    def evidence(
        self, connection: Connection, release: Version, baseline: Version | None, now: datetime
    ) -> str:
        """File passing evidence about *release*, measured against *baseline*; returns its digest."""
        statement = evidence.statement(
            release=release,
            suite=self.suite,
            dataset=self.dataset,
            baseline=baseline,
            gate_policy=None,
            verdict="pass",
            checks=[{"metric": "exact", "value": 0.75, "n": 40, "verdict": "pass"}],
            samples=40,
            started=now,
            now=now,
            valid_hours=24,
            evaluator={"name": "bench"},
        )
        return evaluations.submit(connection, evidence.sign(statement, self.key), actor="ci", now=now)


def cached(folder: Path, scale: Scale, progress: Callable[[str], None]) -> Path:
    """
    The home of a registry of that scale on SQLite, built unless *folder* holds one that the same code wrote.

    Callers work on a copy.
    """
    root = Path(registry.__file__).parent
    sources = [Path(__file__), *(root / name for name in _WRITTEN_BY)]
    code = hashlib.sha256(repr(asdict(scale)).encode() + b"".join(path.read_bytes() for path in sources))
    home = folder / f"registry-{code.hexdigest()[:16]}"
    if not home.exists():
        aside = home.with_suffix(".new")
        shutil.rmtree(aside, ignore_errors=True)
        fill(RegistrySettings(home=aside), scale, progress)
        aside.rename(home)
    return home


def fill(settings: RegistrySettings, scale: Scale, progress: Callable[[str], None]) -> None:
    """Write a whole registry into an empty database."""
    with open_workspace(settings) as workspace:
        stand = begin(workspace, scale)
        clock = _clock()
        for step in (_prompts, _releases, _busy, _suites, _decisions):
            progress(step.__name__.strip("_"))
            step(stand, clock)


def begin(workspace: Workspace, scale: Scale) -> Stand:
    """The suite, dataset, prompt and key that every release is judged with. Idempotent."""
    key = signing.load_or_create_key(workspace.settings.signing_key)
    with workspace.writing() as connection:
        evidence.trust(connection, key.public_key(), actor="ann", now=BEGIN)
        prompts.push(connection, "base", prompt_like("base"), actor="ann", now=BEGIN)
        rows = b'{"id":"1"}\n{"id":"2"}\n'
        dataset = datasets.push(connection, workspace.artifacts, "questions", rows, actor="ann", now=BEGIN)
        suite = suites.push(connection, "quality", {"dataset": dataset.digest}, actor="ann", now=BEGIN)
    return Stand(workspace, key, suite, dataset, scale)


def counts(workspace: Workspace) -> dict[str, int]:
    """Rows of what grows."""
    with workspace.reading() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (tables.versions, tables.alias_moves, tables.evidence, tables.audit)
        }


def _prompts(stand: Stand, clock: Iterator[datetime]) -> None:
    scale = stand.scale
    others = scale.versions - scale.one_prompt - scale.names * scale.releases
    others -= others // 10  # the suites
    many = max(1, others // 100)
    names = ["big"] * scale.one_prompt + [f"prompt-{place % many}" for place in range(others)]
    for start in range(0, len(names), AT_ONCE):
        with stand.workspace.writing() as connection:
            for place, name in enumerate(names[start : start + AT_ONCE], start):
                versions.push(
                    connection, "prompt", name, prompt_like(str(place)), actor="ann", now=next(clock)
                )


def _releases(stand: Stand, clock: Iterator[datetime]) -> None:
    for name in range(stand.scale.names):
        with stand.workspace.writing() as connection:
            standing: Version | None = None
            for number in range(stand.scale.releases):
                file = ReleaseFile(f"service-{name}", "chat", f"openai/m{number}", prompt=f"big:{1 + name}")
                made = releases.create(connection, file, actor="ann", now=next(clock))
                promotion.nominate(connection, made, actor="ann", now=next(clock))
                if number < 3:
                    stand.evidence(connection, made, standing, next(clock))
                    promote(stand, connection, made, now=next(clock))
                    standing = made


def _busy(stand: Stand, clock: Iterator[datetime]) -> None:
    """Two releases that changed places for years."""
    with stand.workspace.writing() as connection:
        made = [
            releases.create(
                connection,
                ReleaseFile("busy", "chat", f"openai/m{number}", prompt="base"),
                actor="ann",
                now=next(clock),
            )
            for number in range(2)
        ]
        for move in range(stand.scale.moves):
            swap(stand, connection, made[move % 2], now=next(clock))


def _suites(stand: Stand, clock: Iterator[datetime]) -> None:
    with stand.workspace.reading() as connection:
        query = select(func.count()).select_from(tables.versions)
        missing = stand.scale.versions - connection.execute(query).scalar_one()
    for start in range(0, missing, AT_ONCE):
        with stand.workspace.writing() as connection:
            for place in range(start, min(start + AT_ONCE, missing)):
                content = {"dataset": stand.dataset.digest, "seed": place}
                suites.push(connection, f"suite-{place % 200}", content, actor="ann", now=next(clock))


def _decisions(stand: Stand, clock: Iterator[datetime]) -> None:
    with stand.workspace.reading() as connection:
        missing = stand.scale.audit - connection.execute(select(func.max(tables.audit.c.seq))).scalar_one()
    for start in range(0, missing, 50_000):
        entries = [
            Entry("request.refuse", f"requests/{place % 100}", {"count": place, "code": "rate_limited"},
                  "gateway", "decision")
            for place in range(start, min(start + 50_000, missing))
        ]  # fmt: skip
        with stand.workspace.writing() as connection:
            audit.append_all(connection, entries, now=next(clock))


def promote(stand: Stand, connection: Connection, release: Version, *, now: datetime) -> None:
    """Promote a release that has evidence to production."""
    ref = Ref(release.name, digest=release.digest)
    artifacts = stand.workspace.artifacts
    promotion.promote(connection, artifacts, ref, "production", actor="ann", reason="bench", now=now)


def swap(stand: Stand, connection: Connection, release: Version, *, now: datetime) -> None:
    """Point production at a release without evidence."""
    ref = Ref(release.name, digest=release.digest)
    artifacts, reason = stand.workspace.artifacts, "the bench needs a long history"
    promotion.break_glass(connection, artifacts, ref, "production", actor="ann", reason=reason, now=now)


def prompt_like(text: str) -> PromptContent:
    """A prompt of about the size that people write."""
    rules = "\n".join(f"{number}. Answer in the language of the question." for number in range(1, 9))
    messages = (PromptMessage("system", f"Version {text}.\n{rules}"), PromptMessage("user", "{{ question }}"))
    return PromptContent(messages, {"question": "text"})


def _clock() -> Iterator[datetime]:
    now = BEGIN
    while True:
        now += STEP
        yield now
