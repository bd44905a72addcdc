"""`registry evidence …` and `registry keys …`: what was proven, and whose signature counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from registry import verbs
from registry.errors import BadInput
from registry.ids import short
from registry.signing import read_public_key
from registry.terminal import Json, command_group, show, table
from registry.verbs import evidence


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
    group.command("rotate", epilog="Example: registry keys rotate --json")(rotate_key)
    group.command("retire", epilog="Example: registry keys retire sha256:…")(retire_key)
    group.command("revoke", epilog="Example: registry keys revoke sha256:…")(revoke_key)
    application.add_typer(group, name="keys")


def list_evidence(name: str, *, as_json: Json = False) -> None:
    """List the evidence on file for a release name, newest first."""
    with verbs.session() as session:
        answer = evidence.listing(session, name)
    rows = [
        (short(one["digest"]), short(one["release"]), one["suite"], one["verdict"], one["samples"],
         one["valid_until"][:19])
        for one in answer["evidence"]
    ]  # fmt: skip
    headings = ("EVIDENCE", "RELEASE", "SUITE", "VERDICT", "SAMPLES", "VALID UNTIL")
    show(answer, lambda: table(headings, rows), as_json=as_json)


def show_evidence(
    digest: str,
    *,
    statement: Annotated[bool, typer.Option("--statement", help="Print the decoded statement.")] = False,
    as_json: Json = False,
) -> None:
    """Print an envelope as it was filed."""
    with verbs.session() as session:
        answer = evidence.show(session, digest, statement=statement)
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
    with verbs.session() as session:
        answer = evidence.file(session, envelope)
    show(answer, f"filed {answer['digest']}", as_json=as_json)


def withdraw_evidence(
    digest: str,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit chain.")],
    as_json: Json = False,
) -> None:
    """Take back evidence: it stays on file and justifies nothing any more."""
    with verbs.session() as session:
        answer = evidence.withdraw(session, digest, reason=reason)
    show(answer, f"withdrew {digest}", as_json=as_json)


def list_keys(*, as_json: Json = False) -> None:
    """List the keys ever trusted."""
    with verbs.session() as session:
        answer = evidence.keys(session)
    rows = [
        (
            key["key_id"],
            key["added_at"][:19],
            key["added_by"],
            key["retired_at"] or "-",
            key["revoked_at"] or "-",
        )
        for key in answer["keys"]
    ]
    headings = ("KEY", "ADDED", "BY", "RETIRED", "REVOKED")
    show(answer, lambda: table(headings, rows), as_json=as_json)


def create_key(*, as_json: Json = False) -> None:
    """Make this machine's signing key where there is none, and trust it."""
    with verbs.session() as session:
        answer = evidence.trust(session, session.workspace.evidence_signer.public_key)
    show(answer, f"trusting {answer['key_id']}", as_json=as_json)


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
    with verbs.session() as session:
        answer = evidence.trust(session, lambda: key)
    show(answer, f"trusting {answer['key_id']}", as_json=as_json)


def rotate_key(*, as_json: Json = False) -> None:
    """Give this machine another signing key: trust the new one and retire the old one at once."""
    with verbs.session() as session:
        answer = evidence.rotate(session)
    text = f"trusting {answer['key_id']}\nretired {answer['retired']}, kept in {answer['kept']}"
    show(answer, text, as_json=as_json)


def retire_key(key_id: str, *, as_json: Json = False) -> None:
    """Stop accepting what a key signs from now on; what it signed before keeps its worth."""
    with verbs.session() as session:
        answer = evidence.retire(session, key_id)
    show(answer, f"retired {key_id}", as_json=as_json)


def revoke_key(key_id: str, *, as_json: Json = False) -> None:
    """Stop accepting a key's evidence, past and future."""
    with verbs.session() as session:
        answer = evidence.revoke(session, key_id)
    show(answer, f"revoked {key_id}", as_json=as_json)
