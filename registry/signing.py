"""
Ed25519 keys and what signs with them: a file, or whatever else keeps a key to itself.

A signer is named `file:PATH`, `exec:COMMAND` or `<plug-in>:REST`, where the plug-in is one of the entry-point
group `sluicegate.signers`: a function from REST to a Signer.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from registry import plugins
from registry.errors import BadInput, StoreUnavailable
from registry.ids import PREFIX, digest_bytes

if TYPE_CHECKING:  # cryptography takes 30 ms to import, and most commands sign nothing
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_COMMAND_TIMEOUT_S = 30


class Signer(Protocol):
    """What signs for this machine; the private key may be anywhere. Thread-safe."""

    def public_key(self) -> Ed25519PublicKey:
        """The key that its signatures are verified with."""

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the Ed25519 signature of *data*."""


class FileSigner:
    """Signs with a key file, which is made at the first use."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self.path = path
        self._key: Ed25519PrivateKey | None = None

    def public_key(self) -> Ed25519PublicKey:
        """The public half of the key. Raises BadInput when the file holds none."""
        return self._private().public_key()

    def sign(self, data: bytes) -> bytes:
        """The signature of *data*. Raises BadInput when the file holds no key."""
        return self._private().sign(data)

    def successor(self) -> FileSigner:
        """The key that is to take this one's place, in a file beside it that is made at the first use."""
        return FileSigner(self.path.with_name(f"{self.path.name}.next"))

    def give_way(self) -> Path:
        """
        Put the successor in this key's place at once, and keep this key in a file named after it.

        Returns:
            Where this key is kept. There is a key at the path at every moment.
        """
        kept = self.path.with_name(f"{self.path.name}.{key_id(self.public_key()).removeprefix(PREFIX)[:12]}")
        following = self.successor()
        following.public_key()
        kept.unlink(missing_ok=True)
        os.link(self.path, kept)
        following.path.replace(self.path)
        self._key = None
        return kept

    def _private(self) -> Ed25519PrivateKey:
        if self._key is None:
            self._key = load_or_create_key(self.path)
        return self._key


class CommandSigner:
    """
    Signs through a command, such as that of a key management service.

    `COMMAND public-key` prints the public key in PEM; `COMMAND sign` reads the bytes from standard input and
    prints the signature in base64.
    """

    def __init__(self, command: str) -> None:
        """*command* is split as a shell would, and run without one."""
        self._command = shlex.split(command)
        self._public: Ed25519PublicKey | None = None
        if not self._command:
            message = "exec: names no command"
            raise BadInput(message)

    def public_key(self) -> Ed25519PublicKey:
        """What the command prints. Raises StoreUnavailable when it fails."""
        if self._public is None:
            self._public = read_public_key(self._run("public-key", b""), "the signer's public key")
        return self._public

    def sign(self, data: bytes) -> bytes:
        """What the command prints, checked. Raises StoreUnavailable when it fails or signs otherwise."""
        try:
            signature = base64.b64decode(self._run("sign", data).strip(), validate=True)
        except binascii.Error:
            signature = b""
        if not verifies(self.public_key(), data, signature):
            message = f"{self._command[0]} sign printed something else than its signature in base64"
            raise StoreUnavailable(message)
        return signature

    def _run(self, verb: str, data: bytes) -> bytes:
        try:
            done = subprocess.run(
                [*self._command, verb],
                input=data,
                capture_output=True,
                timeout=_COMMAND_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            why = type(error).__name__
            raise StoreUnavailable(f"the signer {self._command[0]} {verb} failed: {why}") from error
        return done.stdout


def open_signer(named: str, default: Path) -> Signer:
    """
    The signer that a setting names; empty is the key file *default*.

    Raises:
        BadInput: no such kind of signer.
    """
    if not named:
        return FileSigner(default)
    kind, colon, rest = named.partition(":")
    if not colon:
        message = f"signer {named!r} is not file:PATH, exec:COMMAND or <plug-in>:…"
        raise BadInput(message)
    build: Any = plugins.load("signers", kind)
    made: Signer = build(rest)
    return made


def from_file(path: str) -> Signer:
    """The plug-in `file`."""
    return FileSigner(Path(path))


def from_command(command: str) -> Signer:
    """The plug-in `exec`."""
    return CommandSigner(command)


def key_id(key: Ed25519PublicKey) -> str:
    """The id of a public key: the digest of its 32 raw bytes."""
    return digest_bytes(key.public_bytes_raw())


def verifies(key: Ed25519PublicKey, data: bytes, signature: bytes) -> bool:
    """Whether *signature* is that of *data* by *key*."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def pem(key: Ed25519PublicKey) -> str:
    """The public key as text."""
    from cryptography.hazmat.primitives import serialization

    made = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return made.decode()


def read_public_key(text: bytes, source: str) -> Ed25519PublicKey:
    """
    The Ed25519 public key in PEM *text*.

    Raises:
        BadInput: it is something else; *source* names it.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(text)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{source}: cannot be read as a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{source}: holds a {type(key).__name__}, not an Ed25519 public key")
    return key


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """
    The private key at *path*; made there, readable by its owner alone, when there is none.

    Raises:
        BadInput: the file is not an Ed25519 private key in PEM.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.exists():
        create_key(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read as a private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{path}: holds a {type(key).__name__}, not an Ed25519 key")
    return key


def create_key(path: Path) -> None:
    """Make a private key at *path* unless one is there, also when two processes try at once."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    aside.touch(mode=0o600, exist_ok=False)
    aside.write_bytes(made)
    try:
        os.link(aside, path)
    except FileExistsError:  # another process was first: its key counts
        made = b""
    finally:
        aside.unlink()
