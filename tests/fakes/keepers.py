"""
Strict keepers of secrets on a real socket: Vault, AWS Secrets Manager, Google's metadata server, tokens and
Secret Manager. They check who asks as the real ones do, signatures too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

TOKEN, NAMESPACE = "hvs.token", "team/a"
ACCESS, SECRET, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "eu-west-1"
GOOGLE = "ya29.token"
Answer = tuple[int, Any]


@dataclass
class Keepers:
    """All of them at one address. Read and change it from any thread."""

    url: str = ""
    secrets: dict[str, Any] = field(default_factory=dict)
    """Path behind `/v1/`, name or ARN, or name of a version → what is kept there."""
    down: bool = False
    asked: list[str] = field(default_factory=list)
    account: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def pem(self) -> str:
        return self.account.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.asked.append(path)
        if self.down:
            return 503, {"errors": ["sealed"]}
        if headers.get("x-amz-target"):
            return self._aws(method, path, headers, body)
        if path.startswith("/computeMetadata/"):
            return self._metadata(method, path, headers)
        if path == "/token":
            return self._token(method, headers, body)
        if path.endswith(":access"):
            return self._google(method, path, headers)
        return self._vault(method, path, headers)

    def _vault(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        if method != "GET" or headers.get("x-vault-request") != "true":
            return 400, {"errors": ["bad request"]}
        if headers.get("x-vault-token") != TOKEN or headers.get("x-vault-namespace") != NAMESPACE:
            return 403, {"errors": ["permission denied"]}
        name = path.removeprefix("/v1/")
        if name not in self.secrets:
            return 404, {"errors": []}
        kept = self.secrets[name]
        data = {"data": kept, "metadata": {"version": 3}} if "/data/" in name else kept
        return 200, {"request_id": "r", "lease_duration": 0, "data": data}

    def _aws(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if headers["x-amz-target"] != "secretsmanager.GetSecretValue" or method != "POST":
            return 400, {"__type": "UnknownOperationException"}
        if not is_signed(method, path, headers, body):
            return 400, {"__type": "InvalidSignatureException", "message": f"key {SECRET}"}
        name = json.loads(body)["SecretId"]
        if name not in self.secrets:
            return 400, {"__type": "ResourceNotFoundException", "message": "Secrets Manager can't find it."}
        kept = self.secrets[name]
        held = (
            {"SecretBinary": base64.b64encode(kept).decode()}
            if isinstance(kept, bytes)
            else {"SecretString": kept}
        )
        return 200, {"ARN": "arn", "Name": name, **held}

    def _metadata(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        wanted = "/computeMetadata/v1/instance/service-accounts/default/token"
        if headers.get("metadata-flavor") != "Google" or (method, path) != ("GET", wanted):
            return 403, {}
        return 200, {"access_token": GOOGLE, "expires_in": 3599, "token_type": "Bearer"}

    def _token(self, method: str, headers: Mapping[str, str], body: bytes) -> Answer:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if method != "POST" or headers.get("content-type") != "application/x-www-form-urlencoded":
            return 400, {"error": "invalid_request"}
        if form.get("grant_type") == "refresh_token":
            wanted = {
                "grant_type": "refresh_token",
                "client_id": "c",
                "client_secret": "s",
                "refresh_token": "r",
            }
            return (200, {"access_token": GOOGLE}) if form == wanted else (400, {"error": "invalid_grant"})
        head, claims, signature = form["assertion"].split(".")
        self.account.public_key().verify(
            _decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), SHA256()
        )
        said, about = json.loads(_decoded(claims)), json.loads(_decoded(head))
        if (
            form["grant_type"] != "urn:ietf:params:oauth:grant-type:jwt-bearer"
            or about != {"alg": "RS256", "typ": "JWT", "kid": "k1"}
            or said["iss"] != "sa@p.iam.gserviceaccount.com"
            or said["aud"] != f"{self.url}/token"
            or not 0 < said["exp"] - said["iat"] <= 3600
        ):
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": GOOGLE}

    def _google(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        if headers.get("authorization") != f"Bearer {GOOGLE}" or method != "GET":
            return 401, {"error": {"status": "UNAUTHENTICATED"}}
        kept = self.secrets.get(path.removeprefix("/v1/").removesuffix(":access"))
        if kept is None:
            return 404, {"error": {"status": "NOT_FOUND"}}
        data = base64.b64encode(kept if isinstance(kept, bytes) else kept.encode()).decode()
        return 200, {"name": path, "payload": {"data": data}}


def is_signed(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a request has AWS' signature of version 4, recomputed from the request itself."""
    given = dict(
        part.split("=", 1)
        for part in headers.get("authorization", "").removeprefix("AWS4-HMAC-SHA256 ").split(", ")
        if "=" in part
    )
    scope = given.get("Credential", "").split("/")
    if scope[0] != ACCESS or scope[2:] != [REGION, "secretsmanager", "aws4_request"]:
        return False
    names = given["SignedHeaders"].split(";")
    if not {"host", "x-amz-date", "x-amz-target"} <= set(names):
        return False
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
    canonical = "\n".join((method, path, "", lines, ";".join(names), hashlib.sha256(body).hexdigest()))
    text = "\n".join(
        (
            "AWS4-HMAC-SHA256",
            headers["x-amz-date"],
            "/".join(scope[1:]),
            hashlib.sha256(canonical.encode()).hexdigest(),
        )
    )
    key = f"AWS4{SECRET}".encode()
    for part in scope[1:]:
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), given["Signature"])


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@contextmanager
def keepers() -> Iterator[Keepers]:
    """All of them, running."""
    made = Keepers()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = made.answer(self.command, self.path, headers, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._any()

        def do_POST(self) -> None:
            self._any()

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
