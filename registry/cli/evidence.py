"""`registry evidence …` and `registry keys …`: what was proven, and whose signature counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from registry import evaluations, evidence
from registry.clock import to_text, utc_now
from registry.errors import BadInput
from registry.ids import short
from registry.refs import check_name
from registry.signing import read_public_key
from registry.terminal import Json, command_group, show, table
from registry.workspace import open_workspace


def add_to(application: typer.Typer) -> None:
    """Hang the groups `evidence` and `keys` into *application*."""
    group = command_group("Signed evaluation results.")
    group.command("list", epilog="Example: registry evidence list support")(list_evidence)
    group.command("show", epilog="Example: registry evidence show sha256:… > evidence.json")(show_evidence)
    group.command("file", epilog="Example: registry evidence file evidence.json")(file_evidence)
    group.command("withdraw", epilog="Example: registry evidence withdraw sha256:… --reason 'wrong key'")(
        withdraw_evidence
    )
    application.add_typer(group, name="evidence")
    group = command_group("Keys whose evidence this registry accepts.")
    group.command("list", epilog="Example: registry keys list")(list_keys)
    group.command("create", epilog="Example: registry keys create")(create_key)
    group.command("trust", epilog="Example: registry keys trust ci.pub.pem")(trust_key)
    group.command("retire", epilog="Example: registry keys retire sha256:…")(retire_key)
    group.command("revoke", epilog="Example: registry keys revoke sha256:…")(revoke_key)
    application.add_typer(group, name="keys")


def list_evidence(name: str, *, as_json: Json = False) -> None:
    """List the evidence on file for a release name, newest first."""
    with open_workspace() as workspace, workspace.viewing("evidence.list") as connection:
        filed = evaluations.envelopes(connection, check_name(name))
    claims = [(on_file, evidence.claim(envelope)) for on_file, envelope in filed]
    rows = [
        (short(on_file), short(claim.release), claim.suite_name, claim.verdict, claim.samples,
         to_text(claim.valid_until)[:19])
        for on_file, claim in claims
    ]  # fmt: skip
    answer = [
        {
            "digest": on_file,
            "release": claim.release,
            "suite": claim.suite_name,
            "verdict": claim.verdict,
            "samples": claim.samples,
            "valid_until": to_text(claim.valid_until),
        }
        for on_file, claim in claims
    ]
    headings = ("EVIDENCE", "RELEASE", "SUITE", "VERDICT", "SAMPLES", "VALID UNTIL")
    show({"evidence": answer}, lambda: table(headings, rows), as_json=as_json)


def show_evidence(
    digest: str,
    *,
    statement: Annotated[bool, typer.Option("--statement", help="Print the decoded statement.")] = False,
    as_json: Json = False,
) -> None:
    """Print an envelope as it was filed."""
    with open_workspace() as workspace, workspace.viewing("evidence.show") as connection:
        envelope = evaluations.get_envelope(connection, digest)
    answer = json.loads(evidence.open_envelope(envelope)[0]) if statement else envelope
    show(answer, lambda: json.dumps(answer, indent=2), as_json=as_json)


def file_evidence(
    file: Annotated[Path, typer.Argument(help="A signed envelope, as JSON.")], *, as_json: Json = False
) -> None:
    """File evidence that was signed elsewhere. Whether it counts is decided when an alias wants to move."""
    try:
        envelope = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(envelope, dict):
        raise BadInput(f"{file}: is not a JSON object")
    with open_workspace() as workspace, workspace.acting("evidence.file") as (connection, who):
        digest = evaluations.submit(connection, envelope, actor=who, now=utc_now())
    show({"ok": True, "digest": digest}, f"filed {digest}", as_json=as_json)


def withdraw_evidence(
    digest: str,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit chain.")],
    as_json: Json = False,
) -> None:
    """Take back evidence: it stays on file and justifies nothing any more."""
    with open_workspace() as workspace, workspace.acting("evidence.withdraw") as (connection, who):
        evaluations.withdraw(connection, digest, reason=reason, actor=who, now=utc_now())
    show({"ok": True, "digest": digest}, f"withdrew {digest}", as_json=as_json)


def list_keys(*, as_json: Json = False) -> None:
    """List the keys ever trusted."""
    with open_workspace() as workspace, workspace.viewing("keys.list") as connection:
        keys = evidence.trusted(connection)
    rows = [(key["key_id"], key["added_at"][:19], key["added_by"], key["revoked_at"] or "-") for key in keys]
    show({"keys": keys}, lambda: table(("KEY", "ADDED", "BY", "REVOKED"), rows), as_json=as_json)


def create_key(*, as_json: Json = False) -> None:
    """Make this machine's signing key where there is none, and trust it."""
    with open_workspace() as workspace, workspace.acting("keys.trust") as (connection, who):
        key = workspace.evidence_signer.public_key()
        identity = evidence.trust(connection, key, actor=who, now=utc_now())
    show({"ok": True, "key_id": identity}, f"trusting {identity}", as_json=as_json)


def trust_key(
    public_key: Annotated[Path, typer.Argument(help="An Ed25519 public key in PEM.")],
    *,
    as_json: Json = False,
) -> None:
    """Accept evidence signed by another machine's key, such as CI's."""
    try:
        text = public_key.read_bytes()
    except OSError as error:
        raise BadInput(f"{public_key}: cannot be read: {error.strerror}") from error
    key = read_public_key(text, str(public_key))
    with open_workspace() as workspace, workspace.acting("keys.trust") as (connection, who):
        identity = evidence.trust(connection, key, actor=who, now=utc_now())
    show({"ok": True, "key_id": identity}, f"trusting {identity}", as_json=as_json)


def retire_key(key_id: str, *, as_json: Json = False) -> None:
    """Stop accepting what a key signs from now on; what it signed before keeps its worth."""
    with open_workspace() as workspace, workspace.acting("keys.retire") as (connection, who):
        evidence.retire(connection, key_id, actor=who, now=utc_now())
    show({"ok": True, "key_id": key_id}, f"retired {key_id}", as_json=as_json)


def revoke_key(key_id: str, *, as_json: Json = False) -> None:
    """Stop accepting a key's evidence, past and future."""
    with open_workspace() as workspace, workspace.acting("keys.revoke") as (connection, who):
        evidence.revoke(connection, key_id, actor=who, now=utc_now())
    show({"ok": True, "key_id": key_id}, f"revoked {key_id}", as_json=as_json)
