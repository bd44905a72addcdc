"""Register what was judged and file the signed verdict; a fail is filed like a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from classical.lineage import git_state
from evals.cache import code_digest
from evals.dataset import Dataset
from evals.run import EvalRun
from evals.suite import EvalSuite, content_of
from registry import datasets, evaluations, evidence, policies, suites
from registry.entities import Version
from registry.errors import BadInput
from registry.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Filed:
    """What a run left in the registry."""

    evidence: str
    """Digest of the envelope."""
    envelope: Mapping[str, Any]
    suite: Version
    dataset: Version


def register(
    workspace: Workspace, suite: EvalSuite, dataset: Dataset, *, now: datetime
) -> tuple[Version, Version]:
    """The suite and its dataset as versions. Idempotent: equal content, same versions."""
    with workspace.acting("suites.push") as (connection, who):
        kept = dataset.version or datasets.push(
            connection,
            workspace.artifacts,
            dataset.name,
            dataset.rows,
            source=dataset.source,
            licence=dataset.licence,
            actor=who,
            now=now,
        )
        content = content_of(suite, kept.digest)
        return suites.push(connection, suite.name, content, actor=who, now=now), kept


def file(
    workspace: Workspace,
    run: EvalRun,
    checks: list[dict[str, Any]],
    summary: Mapping[str, Any],
    *,
    folder: Path,
    valid_hours: float,
    now: datetime,
) -> Filed:
    """
    Sign the verdict with this machine's key and file it.

    In a registry that trusts no key yet, this machine's becomes the first; later ones are trusted
    with `registry keys trust`.

    Args:
        checks: what each check found, as plain JSON.
        summary: the report, kept beside the run.
        folder: where the suite lies; the statement names the commit of the repository around it.

    Raises:
        BadInput: *valid_hours* is not positive, or the key file is no Ed25519 key.
        StoreUnavailable: the registry cannot be written.
    """
    suite, dataset = register(workspace, run.suite, run.dataset, now=now)
    signer = workspace.evidence_signer
    state = git_state(folder)
    commit = {"commit": state.commit, "dirty": state.dirty} if state is not None else {}
    release = run.subjects.candidate.version
    if release is None:
        raise BadInput(f"{run.subjects.candidate.ref} is no release: its verdict cannot be evidence")
    baseline = run.subjects.baseline
    with workspace.acting("evidence.file") as (connection, who):
        evidence.trust_first(connection, signer.public_key(), actor=who, now=now)
        older = evaluations.of_suite(connection, release.digest, suite.name)
        gate_policy, _ = policies.gate_for(connection, release.name)
        statement = evidence.statement(
            release=release,
            suite=suite,
            dataset=dataset,
            baseline=baseline.version if baseline else None,
            gate_policy=gate_policy,
            verdict=run.decision.verdict,
            checks=checks,
            samples=run.samples,
            started=run.started,
            now=now,
            valid_hours=valid_hours,
            evaluator={
                "name": "sluicegate evals",
                "version": installed("sluicegate"),
                "code": code_digest(),
                **commit,
            },
            judges=_deciding(run),
            supersedes=older,
        )
        envelope = evidence.sign(statement, signer)
        digest = evaluations.submit(connection, envelope, actor=who, now=now, summary=summary)
    return Filed(digest, envelope, suite, dataset)


def _deciding(run: EvalRun) -> list[Version]:
    """The judges that checks which decide rest on; those that only advise prove nothing."""
    asked = {
        run.suite.judge_of(result.check)
        for result in run.decision.results
        if result.metric.rate is not None and result.tier != "advisory"
    }
    return [use.judge.version for use in run.judges if use.name in asked]
