"""A real registry with its model beside it; whatever is done there is one transaction, which may crash."""

from __future__ import annotations

import base64
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import Connection, event

from registry import audit_verify, evidence, promotion
from registry.entities import Version
from registry.errors import PlatformError
from registry.ids import digest
from registry.settings import RegistrySettings
from registry.signing import key_id
from registry.workspace import Workspace, open_workspace
from tests.properties.registry_model import Key, Paper, World

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SUITES = ("quality", "safety")
FLAWS = (
    "key", "forged", "old", "rather old", "future", "short", "few", "suite", "judge", "policy", "baseline",
)  # fmt: skip
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 4)]


class Crash(Exception):
    """The process ends here."""


class Stage(RuleBasedStateMachine):
    """A registry in a folder of its own, and what the model says of it."""

    seen: ClassVar[Counter[str]] = Counter()
    """What came about in all runs, so that the test can tell that it tested something."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="sluicegate-machine-")
        home = Path(self.folder.name) / "home"
        self.opened = open_workspace(RegistrySettings(home=home))
        self.workspace: Workspace = self.opened.__enter__()
        self.database = home / "registry.db"
        self.world = World(START)
        self.made: list[Paper] = []
        """Every paper ever signed, filed or not."""
        self.versions: dict[str, list[Version]] = {}
        self.hostile = False
        self.papers = self.steps = 0
        self.why = ""

    def teardown(self) -> None:
        if not self.hostile:
            with self.workspace.reading() as connection:
                assert audit_verify.verify(connection, every_signature=True)["problems"] == []
                assert promotion.problems(connection, self.workspace.artifacts) == []
        self.opened.__exit__(None, None, None)
        self.folder.cleanup()

    def pushed(self, kind: str, push: Callable[[Connection, datetime], Version]) -> Version | None:
        """The version, if it is one that was not there before."""
        version: Version | None = self.doing(push)
        known = self.versions.setdefault(kind, [])
        if version is None or any(version.digest == one.digest for one in known):
            return None
        known.append(version)
        return version

    def signed(
        self,
        release: Version,
        suite: str,
        verdict: str,
        flaw: str | None,
        *,
        judged: bool = False,
        takes: str | None = None,
    ) -> Paper:
        """A new paper about *release*, right but for its flaw."""
        keys = self.world.keys
        good = [one for one in KEYS if self.is_good(keys[key_id(one.public_key())]) == (flaw != "key")]
        key = good[0] if good else KEYS[0]
        production = self.world.at("production")
        baseline = next((one for one in self.versions["release"] if one.digest == production), None)
        if flaw == "baseline":
            baseline = self.versions["release"][0]
        known = self.versions.get("policy", [])
        policy = known[0 if flaw == "policy" else -1] if known else None
        of_suite = self.versions[suite][0 if flaw == "suite" else -1]
        judge = self.versions["judge"][0 if flaw == "judge" else -1] if judged else None
        dataset = next(d for d in self.versions["dataset"] if d.digest == of_suite.content["dataset"])
        self.papers += 1
        hours_old = {"old": 200.0, "rather old": 2.0, "future": -1.0}.get(str(flaw), 0.0)
        begins = self.world.now - timedelta(hours=hours_old) - timedelta(microseconds=self.papers)
        valid_hours, samples = (1.0 if flaw == "short" else 400.0), (40 if flaw == "few" else 60)
        said = evidence.statement(
            release=release,
            suite=of_suite,
            dataset=dataset,
            baseline=baseline,
            gate_policy=policy,
            verdict="fail" if flaw == "forged" else verdict,  # type: ignore[arg-type]
            checks=[],
            samples=samples,
            started=begins,
            now=begins,
            valid_hours=valid_hours,
            evaluator={"name": f"machine {self.papers}"},
            judges=[judge] if judge else [],
            supersedes=[takes] if takes else [],
        )
        envelope = evidence.sign(said, key)
        if flaw == "forged":
            payload = base64.b64decode(envelope["payload"]).replace(b'"verdict":"fail"', b'"verdict":"pass"')
            envelope = {**envelope, "payload": base64.b64encode(payload).decode()}
        paper = Paper(
            digest=digest(envelope), envelope=envelope, signer=key_id(key.public_key()),
            release=release.digest, suite=suite, suite_digest=of_suite.digest, dataset_digest=dataset.digest,
            judge_digest=judge.digest if judge else None, policy_digest=policy.digest if policy else None,
            baseline=baseline.digest if baseline else None, verdict="pass" if flaw == "forged" else verdict,
            samples=samples, begins=begins, ends=begins + timedelta(hours=valid_hours),
            supersedes=frozenset([takes] if takes else []), forged=flaw == "forged",
        )  # fmt: skip
        self.made.append(paper)
        return paper

    def is_good(self, key: Key) -> bool:
        return key.trusted and not key.revoked and key.retired is None

    def doing(
        self, act: Callable[[Connection, datetime], Any], crash: int | None = None, *, cut: bool = False
    ) -> Any:
        """
        What *act* gives in one write transaction; None where it is refused, and `why` says by what.

        Args:
            crash: end at this SQL statement.
            cut: by closing the connection to the database, not by an error.
        """
        self.world.now += timedelta(seconds=1)
        count = 0

        def end(connection: Any, cursor: Any, *_: Any) -> None:
            nonlocal count
            count += 1
            if count == crash:
                if cut:
                    cursor.connection.interrupt()
                    cursor.connection.rollback()
                raise Crash

        engine = self.workspace.engine
        self.why = ""
        if crash is not None:
            event.listen(engine, "before_cursor_execute", end)
        try:
            with self.workspace.writing() as connection:
                return act(connection, self.world.now)
        except PlatformError as error:
            self.why = "crash" if 0 < (crash or 0) <= count else error.code
        except Crash:
            self.why = "crash"
        finally:
            self.seen["crash"] += self.why == "crash"
            if crash is not None:
                event.remove(engine, "before_cursor_execute", end)
        return None
