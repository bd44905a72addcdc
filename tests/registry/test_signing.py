"""Keys: made once, private to their owner, in a file or behind a command."""

from __future__ import annotations

import stat
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from registry import audit, audit_verify, signing
from registry.errors import BadInput, NotFound, StoreUnavailable
from registry.settings import RegistrySettings
from registry.signing import CommandSigner, FileSigner
from registry.workspace import open_workspace

from .conftest import NOW

SIGNER = """
import base64, sys
from pathlib import Path
from registry.signing import load_or_create_key, pem
key = load_or_create_key(Path(sys.argv[1]))
if sys.argv[2] == "public-key":
    print(pem(key.public_key()))
else:
    print(base64.b64encode(key.sign(sys.stdin.buffer.read())).decode())
"""


def command(tmp_path: Path, text: str = SIGNER) -> str:
    script = tmp_path / "signer.py"
    script.write_text(text)
    return f"{sys.executable} {script} {tmp_path / 'kms.pem'}"


def test_a_key_file_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.pem"
    signer = FileSigner(path)
    signer.public_key().verify(signer.sign(b"data"), b"data")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert signing.key_id(FileSigner(path).public_key()) == signing.key_id(signer.public_key())
    assert [found.name for found in path.parent.iterdir()] == ["audit.pem"]


def test_many_who_make_a_key_at_once_have_the_same(tmp_path: Path) -> None:
    path, ids = tmp_path / "audit.pem", list[str]()

    def make() -> None:
        ids.append(signing.key_id(FileSigner(path).public_key()))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(ids), len(set(ids))) == (8, 1)


def test_a_file_that_holds_no_key_of_the_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.pem"
    path.write_text("nonsense")
    with pytest.raises(BadInput, match="cannot be read as a private key"):
        FileSigner(path).sign(b"")
    other = generate_private_key(SECP256R1())
    path.write_bytes(
        other.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(BadInput, match="not an Ed25519 key"):
        FileSigner(path).sign(b"")
    public = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(BadInput, match="not an Ed25519 public key"):
        signing.read_public_key(public, "test")


def test_a_public_key_survives_its_text(tmp_path: Path) -> None:
    key = FileSigner(tmp_path / "key.pem").public_key()
    assert signing.key_id(signing.read_public_key(signing.pem(key).encode(), "test")) == signing.key_id(key)


def test_a_command_signs_the_audit_chain_in_place_of_a_file(tmp_path: Path) -> None:
    settings = RegistrySettings(home=tmp_path / "home", audit_signer=f"exec:{command(tmp_path)}")
    with open_workspace(settings) as workspace:
        with workspace.writing() as connection:
            audit.append(connection, "test.do", "x", {}, actor="ann", now=NOW)
        with workspace.reading() as connection:
            answer = audit_verify.verify(connection)
    kms = FileSigner(tmp_path / "kms.pem").public_key()
    assert (answer["problems"], list(answer["signers"])) == ([], [signing.key_id(kms)])
    assert not settings.audit_key.exists()


def test_a_command_that_signs_with_another_key_is_not_believed(tmp_path: Path) -> None:
    other = SIGNER.replace("else:\n", 'else:\n    key = load_or_create_key(Path(sys.argv[1] + "2"))\n')
    with pytest.raises(StoreUnavailable, match="something else than its signature"):
        CommandSigner(command(tmp_path, other)).sign(b"data")


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "print('?')"])
def test_a_command_that_fails_or_prints_rubbish_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises((StoreUnavailable, BadInput)):
        CommandSigner(command(tmp_path, text)).sign(b"data")


def test_signers_are_named_by_settings(tmp_path: Path) -> None:
    default = tmp_path / "default.pem"
    signer = signing.open_signer("", default)
    assert isinstance(signer, FileSigner)
    assert signer.path == default
    named = signing.open_signer(f"file:{tmp_path / 'other.pem'}", default)
    assert isinstance(named, FileSigner)
    assert named.path == tmp_path / "other.pem"
    assert isinstance(signing.open_signer("exec:sign-it", default), CommandSigner)
    for wrong in ("audit.pem", "exec:", "nothing:x"):
        with pytest.raises((BadInput, NotFound)):
            signing.open_signer(wrong, default)
