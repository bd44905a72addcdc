"""
What may move a guarded alias, written a second time and otherwise: a plain list of what happened, and a
question asked of it. It knows nothing of the registry's tables, chain or gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any


@dataclass
class Key:
    """An evaluator's key, and since when its word counts no more."""

    id: str
    trusted: bool = False
    retired: datetime | None = None
    revoked: bool = False


@dataclass
class Release:
    """A release and who made it."""

    number: int
    digest: str
    author: str


@dataclass
class Paper:
    """One signed envelope, as its signer wrote it."""

    digest: str
    envelope: dict[str, Any]
    signer: str
    release: str
    suite: str
    suite_digest: str
    dataset_digest: str
    judge_digest: str | None
    policy_digest: str | None
    baseline: str | None
    verdict: str
    samples: int
    begins: datetime
    ends: datetime
    supersedes: frozenset[str] = frozenset()
    forged: bool = False
    withdrawn: bool = False


@dataclass
class Terms:
    """What the newest gate policy says."""

    digest: str | None = None
    suites: tuple[str, ...] = ()
    max_age: timedelta = timedelta(hours=168)
    samples: int = 0
    approvals: int = 0
    evaluators: frozenset[str] | None = None


@dataclass
class Step:
    """One move of an alias."""

    action: str
    came_from: str | None
    went_to: str
    papers: frozenset[str] = frozenset()
    at: datetime | None = None
    """Of a rollback."""


@dataclass
class World:
    """Everything that was said and done."""

    now: datetime
    keys: dict[str, Key] = field(default_factory=dict)
    releases: dict[str, Release] = field(default_factory=dict)
    papers: dict[str, Paper] = field(default_factory=dict)
    """Those on file."""
    approvals: set[tuple[str, str, str]] = field(default_factory=set)
    """(release digest, alias, who)"""
    terms: Terms = field(default_factory=Terms)
    suites: dict[str, str] = field(default_factory=dict)
    """Name → digest of the newest."""
    suite_dataset: dict[str, str] = field(default_factory=dict)
    """Name → the dataset digest that the newest names."""
    dataset: str = ""
    judge: str = ""
    steps: dict[str, list[Step]] = field(default_factory=dict)

    def at(self, alias: str) -> str | None:
        """The digest an alias points at."""
        steps = self.steps.get(alias)
        return steps[-1].went_to if steps else None

    def may_promote(self, release: Release, alias: str, given: list[Paper] | None = None) -> bool:
        """Whether evidence and approvals let *alias* go to *release* now."""
        agreed = {who for digest, to, who in self.approvals if (digest, to) == (release.digest, alias)}
        if len(agreed - {release.author}) < self.terms.approvals:
            return False
        heard = [paper for paper in self.papers.values() if not paper.withdrawn]
        asked = heard if given is None else given
        words = {}
        for paper in sorted(asked, key=lambda paper: paper.begins):
            if self._holds(paper, release, alias):
                words[paper.suite] = paper
        for paper in heard:
            known = words.get(paper.suite)
            if known is not None and paper.begins > known.begins and self._holds(paper, release, alias):
                words[paper.suite] = paper
        wanted = set(self.terms.suites) or set(words)
        return bool(wanted) and all(name in words and words[name].verdict == "pass" for name in wanted)

    def spent(self, release: Release, alias: str) -> set[str]:
        """Papers whose move to *release* was rolled back."""
        used: set[str] = set()
        gone: set[str] = set()
        for step in self.steps.get(alias, []):
            if step.action == "promote" and step.went_to == release.digest:
                used |= step.papers
            if step.action == "rollback" and step.came_from == release.digest:
                gone |= used
        return gone

    def back(self, alias: str) -> str | None:
        """Where a rollback would go."""
        trail: list[str] = []
        for step in self.steps.get(alias, []):
            if step.action == "rollback":
                trail.pop()
            elif not trail or trail[-1] != step.went_to:
                trail.append(step.went_to)
        return trail[-2] if len(trail) > 1 else None

    def _holds(self, paper: Paper, release: Release, alias: str) -> bool:
        production = self.at("production")
        others = [one for one in self.papers.values() if not one.withdrawn and self._signed(one)]
        on_file = self.papers.get(paper.digest)
        return (
            self._signed(paper)
            and paper.release == release.digest
            and paper.begins <= self.now < paper.ends
            and paper.begins >= self.now - self.terms.max_age
            and not (on_file is not None and on_file.withdrawn)
            and not any(paper.digest in one.supersedes for one in others if one.release == release.digest)
            and paper.digest not in self.spent(release, alias)
            and not any(
                step.at is not None and step.came_from == release.digest and paper.begins < step.at
                for step in self.steps.get(alias, [])
            )
            and (self.terms.evaluators is None or paper.signer in self.terms.evaluators)
            and paper.policy_digest == self.terms.digest
            and paper.suite_digest == self.suites.get(paper.suite)
            and paper.dataset_digest == self.suite_dataset.get(paper.suite) == self.dataset
            and paper.judge_digest in (None, self.judge)
            and paper.samples >= self.terms.samples
            and production in (None, release.digest, paper.baseline)
        )

    def _signed(self, paper: Paper) -> bool:
        key = self.keys[paper.signer]
        on_time = key.retired is None or paper.begins < key.retired
        return not paper.forged and key.trusted and not key.revoked and on_time
