"""
`gcp:projects/P/secrets/S/versions/latest#FIELD`: Google Secret Manager.

Who asks is found as by Google's own tools: the file that GOOGLE_APPLICATION_CREDENTIALS names (a service
account, or what `gcloud auth application-default login` writes), else the metadata server of the machine.
Without `#FIELD` the whole text is the secret.

Source: RFC 7523, sections 2.1 and 3, for the service account's assertion.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from registry.clock import utc_now
from registry.errors import BadSettings, SecretUnavailable
from registry.secrets import field_of, split_field
from registry.secrets.keepers import ask, refused

_NAME = re.compile(r"projects/[\w:.-]+(/locations/[\w-]+)?/secrets/[\w-]+/versions/[\w-]+", re.ASCII)
_API = "https://secretmanager.googleapis.com/"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_LIFE_S = 600
_WHO = "Google Secret Manager"


def resolve(rest: str, environ: Mapping[str, str]) -> str:
    """
    The secret, or one field of it.

    Raises:
        BadSettings: no name of a version, or credentials that cannot be read.
        SecretUnavailable: Google, or the metadata server, does not answer or refuses.
    """
    name, field = split_field(rest)
    reference = f"gcp:{rest}"
    if not _NAME.fullmatch(name):
        raise BadSettings(f"{reference} is not projects/PROJECT/secrets/SECRET/versions/latest")
    root = environ.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER") or _API
    token = _token(reference, environ)
    url = f"{root.rstrip('/')}/v1/{name}:access"
    status, answer = ask(url, {"authorization": f"Bearer {token}"}, who=_WHO)
    if status != 200:
        raise refused(_WHO, reference, status)
    payload = answer.get("payload")
    try:
        text = base64.b64decode(payload["data"] if isinstance(payload, dict) else "", validate=True).decode()
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise BadSettings(f"{reference} is binary; store it as text") from error
    return field_of(text, field, reference)


def _token(reference: str, environ: Mapping[str, str]) -> str:
    file = environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    if not file:
        host = environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
        return _taken(reference, *ask(url, {"metadata-flavor": "Google"}, who="the metadata server"))
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSettings(f"{reference}: GOOGLE_APPLICATION_CREDENTIALS {file} cannot be read") from error
    kind = found.get("type") if isinstance(found, dict) else None
    try:
        if kind == "service_account":
            form = {"grant_type": _GRANT, "assertion": _assertion(found)}
        elif kind == "authorized_user":
            names = ("client_id", "client_secret", "refresh_token")
            form = {"grant_type": "refresh_token"} | {name: str(found[name]) for name in names}
        else:
            message = f"{reference}: {file} is neither a service account's nor an authorized user's"
            raise BadSettings(message)
    except (KeyError, TypeError, ValueError) as error:
        raise BadSettings(f"{reference}: {file} lacks something: {type(error).__name__}") from None
    where = str(found.get("token_uri") or _TOKEN_URI)
    return _taken(reference, *ask(where, _FORM, who="Google's tokens", data=urlencode(form).encode()))


def _taken(reference: str, status: int, answer: dict[str, Any]) -> str:
    token = answer.get("access_token")
    if status != 200 or not isinstance(token, str):
        raise SecretUnavailable(f"{reference}: no token for Google is to be had (status {status})")
    return token


def _assertion(account: dict[str, Any]) -> str:
    """A JSON Web Token that the account signs (RS256)."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(str(account["private_key"]).encode(), None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError
    now = int(utc_now().timestamp())
    head = {"alg": "RS256", "typ": "JWT", "kid": str(account.get("private_key_id", ""))}
    claims = {
        "iss": str(account["client_email"]), "scope": _SCOPE,
        "aud": str(account.get("token_uri") or _TOKEN_URI), "iat": now, "exp": now + _LIFE_S,
    }  # fmt: skip
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
    return f"{signed}.{_encoded(key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
