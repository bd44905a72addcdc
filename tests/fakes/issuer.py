"""An OpenID provider on a real socket: discovery, keys, and tokens as good or bad as they are asked for."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from registry.clock import utc_now

AUDIENCE = "sluicegate"
RSA, EC, ED = "rsa-1", "ec-1", "ed-1"
_ALGORITHMS = {"rsa": "RS256", "ec-": "ES256", "ed-": "EdDSA"}
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass
class Issuer:
    """Change it from any thread."""

    url: str = ""
    keys: dict[str, Private] = field(default_factory=dict)
    """Those that it publishes, by kid."""
    down: bool = False
    says: dict[str, Any] = field(default_factory=dict)
    """What discovery says otherwise."""
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Kid → further members of its published key."""
    asked: list[str] = field(default_factory=list)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims, with *changes*; None leaves one out."""
        now = int(utc_now().timestamp())
        made = {
            "iss": self.url, "aud": AUDIENCE, "sub": "u-17", "exp": now + 300, "iat": now, "nbf": now,
            "roles": ["gate-viewer"],
        } | changes  # fmt: skip
        return {name: value for name, value in made.items() if value is not None}

    def token(
        self, kid: str | None = RSA, *, key: Private | None = None, head: Any = None, **changes: Any
    ) -> str:
        """A token that the key *kid* signs; *head* are further members of its header."""
        algorithm = _ALGORITHMS[(kid or RSA)[:3]]
        made: dict[str, Any] = dict(head or {})
        if kid is not None:
            made["kid"] = kid
        secret: Any = key or self.keys[kid or RSA]
        return jwt.encode(self.claims(**changes), secret, algorithm, headers=made)

    def forged(self, head: dict[str, Any], secret: bytes | None = None, **changes: Any) -> str:
        """A token with any header, signed by HMAC with *secret*, or not at all."""
        text = ".".join(encoded(json.dumps(part).encode()) for part in (head, self.claims(**changes)))
        signature = hmac.digest(secret, text.encode(), hashlib.sha256) if secret is not None else b""
        return f"{text}.{encoded(signature)}"

    def pem(self, kid: str) -> bytes:
        """What everybody can read of a key."""
        return self.keys[kid].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def answer(self, path: str) -> tuple[int, Any]:
        self.asked.append(path)
        if self.down:
            return 503, {}
        if path == "/.well-known/openid-configuration":
            return 200, {"issuer": self.url, "jwks_uri": f"{self.url}/keys"} | self.says
        if path == "/keys":
            return 200, {"keys": [self._published(kid) for kid in self.keys]}
        return 404, {}

    def _published(self, kid: str) -> dict[str, Any]:
        kinds: dict[str, Any] = {"rsa": jwt.algorithms.RSAAlgorithm, "ec-": jwt.algorithms.ECAlgorithm}
        kind = kinds.get(kid[:3], jwt.algorithms.OKPAlgorithm)
        made: dict[str, Any] = json.loads(kind.to_jwk(self.keys[kid].public_key()))
        return made | {"kid": kid, "use": "sig"} | self.extra.get(kid, {})


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def fresh_keys() -> dict[str, Private]:
    """One of each kind."""
    return {
        RSA: rsa.generate_private_key(public_exponent=65537, key_size=2048),
        EC: ec.generate_private_key(ec.SECP256R1()),
        ED: ed25519.Ed25519PrivateKey.generate(),
    }


@contextmanager
def issuer() -> Iterator[Issuer]:
    """One that runs."""
    made = Issuer(keys=fresh_keys())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, found = made.answer(self.path)
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
