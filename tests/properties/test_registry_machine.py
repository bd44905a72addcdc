"""
No sequence of calls, crashes and hands in the database moves a guarded alias without evidence.

A state machine does at random whatever the registry's services offer, crashes in the middle, and writes to
the database behind their back; an independent model (`registry_model.py`) says what would have been right.
`SLUICEGATE_DEEP=1` looks for longer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection

from registry import (
    approvals,
    audit_verify,
    datasets,
    evaluations,
    evidence,
    gate,
    history,
    judges,
    policies,
    promotion,
    prompts,
    releases,
    suites,
)
from registry.entities import GatePolicy, JudgeContent, PromptContent, PromptMessage, Version
from registry.policies import PolicyFile
from registry.refs import Ref
from registry.releases import ReleaseFile
from registry.signing import key_id
from tests.properties import registry_hands as hands
from tests.properties.registry_model import Key, Paper, Release, Step, Terms
from tests.properties.registry_stage import FLAWS, KEYS, SUITES, Stage

DEEP = bool(os.environ.get("SLUICEGATE_DEEP"))
PEOPLE = ("ann", "bob", "cai")
ALIASES = ("production", "staging")
mostly_none = st.one_of(st.none(), st.none(), st.none(), st.integers(1, 25))


class RegistryMachine(Stage):
    """Everything that may happen to one release name."""

    # What is there at the start.

    @initialize()
    def begin(self) -> None:
        for key in KEYS:
            identity = key_id(key.public_key())
            self.world.keys[identity] = Key(identity)
        with self.workspace.writing() as connection:
            evidence.trust(connection, KEYS[0].public_key(), actor="root", now=self.world.now)
            content = PromptContent((PromptMessage("user", "{{ question }}"),), {"question": "text"})
            prompts.push(connection, "support", content, actor="root", now=self.world.now)
        self.world.keys[key_id(KEYS[0].public_key())].trusted = True
        self.push_dataset(0)
        self.push_suite("quality", 0)
        self.push_suite("safety", 0)
        self.push_judge(0)
        for number, who in enumerate(PEOPLE):
            self.create(number, who)

    # Versions.

    @rule(what=st.sampled_from(["dataset", "judge", *SUITES]), n=st.integers(0, 2))
    def push_part(self, what: str, n: int) -> None:
        if what in SUITES:
            self.push_suite(what, n)
        else:
            getattr(self, f"push_{what}")(n)

    def push_dataset(self, n: int) -> None:
        rows = b"".join(b'{"id":"%d"}\n' % one for one in range(n + 1))
        version = self.pushed(
            "dataset",
            lambda connection, now: datasets.push(
                connection, self.workspace.artifacts, "q", rows, actor="root", now=now
            ),
        )
        if version is not None:
            self.world.dataset = version.digest

    def push_suite(self, name: str, n: int) -> None:
        content = {"dataset": self.versions["dataset"][-1].digest, "n": n}
        version = self.pushed(
            name, lambda connection, now: suites.push(connection, name, content, actor="root", now=now)
        )
        if version is not None:
            self.world.suites[name] = version.digest
            self.world.suite_dataset[name] = content["dataset"]  # type: ignore[assignment]

    def push_judge(self, n: int) -> None:
        bare = JudgeContent("openai/judge", f"Is it right? ({n})")
        held = {"of": judges.subject_of(bare), "calibrated": True, "expires": "2999-01-01T00:00:00Z"}
        content = replace(bare, calibration=held)
        version = self.pushed(
            "judge", lambda connection, now: judges.push(connection, "fair", content, actor="root", now=now)
        )
        if version is not None:
            self.world.judge = version.digest

    @rule(
        wanted=st.sampled_from([(), ("quality",), SUITES]),
        samples=st.sampled_from([None, 50]),
        count=st.sampled_from([None, 1, 2]),
        only_first=st.booleans(),
        hours=st.sampled_from([168.0, 1.0]),
    )
    def push_policy(
        self, wanted: tuple[str, ...], samples: int | None, count: int | None, only_first: bool, hours: float
    ) -> None:
        first = key_id(KEYS[0].public_key())
        terms = GatePolicy(
            suites=wanted,
            max_age_hours=hours,
            min_samples=samples,
            approvals=count,
            evaluators=(first,) if only_first else None,
        )
        file = PolicyFile(kind="gate", name="support", gate=terms)
        version = self.pushed(
            "policy", lambda connection, now: policies.push(connection, file, actor="root", now=now)
        )
        if version is not None:
            trusted = frozenset({first}) if only_first else None
            self.world.terms = Terms(
                version.digest, wanted, timedelta(hours=hours), samples or 0, count or 0, trusted
            )

    @rule(n=st.integers(0, 3), who=st.sampled_from(PEOPLE))
    def create(self, n: int, who: str) -> None:
        file = ReleaseFile(name="support", kind="chat", model=f"openai/m{n}", prompt="support")

        def push(connection: Connection, now: datetime) -> Version:
            version = releases.create(connection, file, actor=who, now=now)
            promotion.nominate(connection, version, actor=who, now=now)
            return version

        version = self.pushed("release", push)
        if version is not None:
            self.world.releases[version.digest] = Release(version.number, version.digest, who)

    # Evidence.

    @rule(
        data=st.data(),
        suite=st.sampled_from(SUITES),
        verdict=st.sampled_from(["pass", "pass", "fail", "inconclusive"]),
        flaw=st.sampled_from([None, None, None, *FLAWS]),
        judged=st.booleans(),
        filed=st.sampled_from([True, True, True, False]),
    )
    def sign(
        self, data: st.DataObject, suite: str, verdict: str, flaw: str | None, judged: bool, filed: bool
    ) -> None:
        release = data.draw(st.sampled_from(self.versions["release"]))
        older = [one.digest for one in self.made if one.release == release.digest]
        takes = data.draw(st.sampled_from([None, None, None, *older[-2:]])) if older else None
        paper = self.signed(release, suite, verdict, flaw, judged=judged, takes=takes)
        if filed:
            self.file(paper, None)

    @rule(
        data=st.data(),
        alias=st.sampled_from(("production", "production", "staging")),
        flaw=st.sampled_from(
            [None, None, None, None, *FLAWS, "fail", "unapproved", "unapproved", "withdrawn", "revoked"]
        ),
        crash=mostly_none,
        cut=st.booleans(),
        filed=st.sampled_from([True, True, True, False]),
    )
    def prove_and_promote(
        self,
        data: st.DataObject,
        alias: str,
        flaw: str | None,
        crash: int | None,
        cut: bool,
        filed: bool,
    ) -> None:
        """All it takes, but for one flaw."""
        self.prove(data, alias, flaw, crash, cut=cut, filed=filed)

    @rule(data=st.data(), alias=st.sampled_from(("production", "production", "staging")))
    def just_promote(self, data: st.DataObject, alias: str) -> None:
        """All it takes."""
        self.prove(data, alias)

    def prove(
        self,
        data: st.DataObject,
        alias: str,
        flaw: str | None = None,
        crash: int | None = None,
        *,
        cut: bool = False,
        filed: bool = True,
    ) -> None:
        others = [one for one in self.versions["release"] if one.digest != self.world.at(alias)]
        release = data.draw(st.sampled_from(others))
        papers = []
        for place, suite in enumerate(SUITES):
            if self.world.suite_dataset[suite] != self.world.dataset:  # or nothing else would matter
                self.push_suite(suite, 3 + len(self.versions[suite]))
            own = flaw if flaw in FLAWS else None  # in all of them, or another suite may be enough
            verdict = "fail" if flaw == "fail" and place == 0 else "pass"
            papers.append(self.signed(release, suite, verdict, own, judged=place == 0 or own == "judge"))
            if filed or flaw == "withdrawn":
                self.file(papers[-1], None)
        if flaw == "withdrawn":
            self.take_back(papers[0])
        if flaw == "revoked":
            signers = [key_id(key.public_key()) for key in KEYS]
            self.change_key(signers.index(papers[0].signer), "revoke")
        for who in PEOPLE:
            self.agree(release, alias, who, back=flaw == "unapproved")
        named = papers if flaw == "withdrawn" or not filed else None
        self.promote_to(release, alias, named, crash, cut=cut)

    @precondition(lambda self: self.made)
    @rule(data=st.data(), crash=mostly_none)
    def file_later(self, data: st.DataObject, crash: int | None) -> None:
        self.file(data.draw(st.sampled_from(self.made)), crash)

    def file(self, paper: Paper, crash: int | None) -> None:
        found = self.doing(
            lambda connection, now: evaluations.submit(connection, paper.envelope, actor="ci", now=now), crash
        )
        if found is not None and paper.digest not in self.world.papers:
            self.world.papers[paper.digest] = paper

    @precondition(lambda self: self.world.papers)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.take_back(self.world.papers[data.draw(st.sampled_from(sorted(self.world.papers)))])

    def take_back(self, paper: Paper) -> None:
        def act(connection: Connection, now: datetime) -> bool:
            evaluations.withdraw(connection, paper.digest, reason="wrong", actor="root", now=now)
            return True

        if self.doing(act):
            paper.withdrawn = True

    @rule(number=st.integers(0, 2), what=st.sampled_from(["trust", "trust", "trust", "retire", "revoke"]))
    def change_key(self, number: int, what: str) -> None:
        key = self.world.keys[key_id(KEYS[number].public_key())]

        def act(connection: Connection, now: datetime) -> bool:
            if what == "trust":
                evidence.trust(connection, KEYS[number].public_key(), actor="root", now=now)
            else:
                getattr(evidence, what)(connection, key.id, actor="root", now=now)
            return True

        if self.doing(act):
            if what == "trust":
                key.trusted = True
            elif what == "revoke":
                key.revoked = True
            else:
                key.retired = self.world.now

    # Approvals and moves.

    @rule(data=st.data(), alias=st.sampled_from(ALIASES), who=st.sampled_from(PEOPLE), back=st.booleans())
    def approve(self, data: st.DataObject, alias: str, who: str, back: bool) -> None:
        self.agree(data.draw(st.sampled_from(self.versions["release"])), alias, who, back=back)

    def agree(self, release: Version, alias: str, who: str, *, back: bool) -> None:
        def act(connection: Connection, now: datetime) -> bool:
            if back:
                approvals.withdraw(connection, release, alias, actor=who, now=now)
                return True
            _, terms = gate.terms_for(connection, "support", alias)
            approvals.give(connection, release, alias, terms=terms, comment="", actor=who, now=now)
            return True

        if self.doing(act):
            change = self.world.approvals.discard if back else self.world.approvals.add
            change((release.digest, alias, who))

    @rule(
        data=st.data(),
        alias=st.sampled_from(ALIASES),
        given=st.booleans(),
        crash=mostly_none,
        cut=st.booleans(),
    )
    def promote(self, data: st.DataObject, alias: str, given: bool, crash: int | None, cut: bool) -> None:
        release = data.draw(st.sampled_from(self.versions["release"]))
        papers = None
        if given and self.made:
            papers = data.draw(st.lists(st.sampled_from(self.made), min_size=1, max_size=2))
        self.promote_to(release, alias, papers, crash, cut=cut)

    def promote_to(
        self,
        version: Version,
        alias: str,
        papers: Sequence[Paper] | None = None,
        crash: int | None = None,
        *,
        cut: bool = False,
    ) -> str:
        """Try; what became of it must be what the model says."""
        release = self.world.releases[version.digest]
        envelopes = None if papers is None else [(one.digest, one.envelope) for one in papers]
        right = self.world.may_promote(release, alias, None if papers is None else list(papers))
        before = self.world.at(alias)

        def act(connection: Connection, now: datetime) -> str:
            move = promotion.promote(
                connection, self.workspace.artifacts, Ref("support", digest=version.digest), alias,
                actor="bob", reason="r", now=now, envelopes=envelopes,
            )  # fmt: skip
            if move is not None:
                step = Step("promote", before, version.digest, frozenset(move.evidence))
                self.pending.append((alias, step))
            return "moved" if move is not None else "there"

        self.pending: list[tuple[str, Step]] = []
        became = self.doing(act, crash, cut=cut) or self.why
        if became in ("moved", "there"):
            assert right, f"{alias} went to {release.number} and nothing allowed it"
            assert (became == "there") == (before == version.digest)
            for to, step in self.pending:
                self.world.steps.setdefault(to, []).append(step)
        elif became != "crash" and not self.hostile:
            assert not right, f"{release.number} was to go to {alias}, and {became} refused it"
        self.seen[f"promote: {became}"] += 1
        return str(became)

    @rule(data=st.data(), alias=st.sampled_from(ALIASES), crash=mostly_none, burning=st.integers(0, 9))
    def break_glass(self, data: st.DataObject, alias: str, crash: int | None, burning: int) -> None:
        if burning > 2:
            self.break_glass_to(data.draw(st.sampled_from(self.versions["release"])), alias, crash)

    def break_glass_to(self, release: Version, alias: str, crash: int | None = None) -> None:
        before = self.world.at(alias)

        def act(connection: Connection, now: datetime) -> str:
            move = promotion.break_glass(
                connection, self.workspace.artifacts, Ref("support", digest=release.digest), alias,
                actor="root", reason="the house is on fire", now=now,
            )  # fmt: skip
            return "moved" if move is not None else "there"

        if self.doing(act, crash) == "moved":
            self.seen["break-glass"] += 1
            self.world.steps.setdefault(alias, []).append(Step("break-glass", before, release.digest))
            with self.workspace.reading() as connection:
                known = audit_records(connection, "alias.break-glass")
            told = sum(one.action == "break-glass" for steps in self.world.steps.values() for one in steps)
            assert self.hostile or known == told

    @precondition(lambda self: self.world.steps)
    @rule(alias=st.sampled_from(("production", "production", "staging")), crash=mostly_none)
    def rollback(self, alias: str, crash: int | None) -> None:
        before, back = self.world.at(alias), self.world.back(alias)

        def act(connection: Connection, now: datetime) -> str:
            move = promotion.rollback(
                connection, self.workspace.artifacts, "support", alias, actor="bob", reason="bad", now=now
            )
            return move.to_digest

        went = self.doing(act, crash)
        if went is not None:
            assert went == back
            self.world.steps[alias].append(Step("rollback", before, went, at=self.world.now))
            self.seen["rollback"] += 1
            given_up = next(one for one in self.versions["release"] if one.digest == before)
            self.promote_to(given_up, alias)  # on the evidence that the rollback spent
        elif self.why != "crash" and not self.hostile:
            assert back is None, self.why

    @rule(hours=st.sampled_from([0.1, 0.1, 2.0, 100.0]))
    def wait(self, hours: float) -> None:
        self.world.now += timedelta(hours=hours)

    # Hands in the database.

    @precondition(lambda self: not self.hostile)
    @rule(data=st.data())
    def write_behind(self, data: st.DataObject) -> None:
        if data.draw(st.integers(0, 5)):
            return  # most runs are to be honest for long
        with self.workspace.reading() as connection:
            assert audit_verify.verify(connection)["ok"]
        name = data.draw(st.sampled_from(sorted(hands.ACTS)))
        scene = hands.Scene(self.world, self.made, KEYS, self.versions["release"][-1].digest)
        if not hands.write(self.database, name, scene):
            return
        self.hostile = True
        self.seen[f"behind: {name}"] += 1
        with self.workspace.reading() as connection:
            assert not audit_verify.verify(connection)["ok"], name
        for release in self.versions["release"]:
            for alias in ALIASES:
                self.promote_to(release, alias)

    # What always holds.

    @invariant()
    def aliases_are_where_the_model_says(self) -> None:
        if self.hostile:
            return
        with self.workspace.reading() as connection:
            for alias in ALIASES:
                state = releases.alias_state(connection, "support", alias)
                assert (state.digest if state else None) == self.world.at(alias)
                moves = history.moves(connection, "support", alias=alias)
                assert [(move.action, move.to_digest) for move in moves] == [
                    (step.action, step.went_to) for step in self.world.steps.get(alias, [])
                ]
            self.steps += 1
            if self.why == "crash" or self.steps % 8 == 0:
                assert audit_verify.verify(connection)["problems"] == []


def audit_records(connection: Connection, action: str) -> int:
    from registry import audit

    return sum(1 for record in audit.records(connection, target="release/*") if record.action == action)


def test_no_sequence_moves_an_alias_without_evidence() -> None:
    RegistryMachine.seen.clear()
    run_state_machine_as_test(
        RegistryMachine,
        settings=settings(
            max_examples=2000 if DEEP else 50,
            stateful_step_count=80 if DEEP else 50,
            derandomize=not DEEP,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    seen = RegistryMachine.seen
    assert seen["promote: moved"] >= 20, seen
    assert seen["crash"] >= 10, seen
