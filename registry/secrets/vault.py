"""
`vault:PATH#FIELD`: HashiCorp Vault and OpenBao, key-value engines of version 1 and 2.

PATH is that of the HTTP API behind `/v1/`: `secret/data/team/openai` in an engine of version 2,
`secret/team/openai` in one of version 1. VAULT_ADDR says where, VAULT_TOKEN or VAULT_TOKEN_FILE (read anew
each time, as an agent writes it) who asks; VAULT_NAMESPACE and VAULT_CACERT count too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from registry.errors import BadSettings, SecretUnavailable
from registry.secrets import split_field
from registry.secrets.keepers import ask, refused


def resolve(rest: str, environ: Mapping[str, str]) -> str:
    """
    The text of one field.

    Raises:
        BadSettings: no field or address, or the secret has no such text.
        SecretUnavailable: Vault does not answer or refuses.
    """
    path, field = split_field(rest)
    reference = f"vault:{rest}"
    if not field or not path.strip("/"):
        raise BadSettings(f"{reference} names no field: write vault:secret/data/path#field")
    address = environ.get("VAULT_ADDR", "")
    if not address:
        raise BadSettings(f"{reference} takes VAULT_ADDR, such as https://vault.example.com:8200")
    headers = {"x-vault-token": _token(reference, environ), "x-vault-request": "true"}
    if environ.get("VAULT_NAMESPACE"):
        headers["x-vault-namespace"] = environ["VAULT_NAMESPACE"]
    url = f"{address.rstrip('/')}/v1/{quote(path.strip('/'))}"
    status, answer = ask(url, headers, who="Vault", ca_file=environ.get("VAULT_CACERT") or None)
    if status != 200:
        raise refused("Vault", reference, status)
    data = answer.get("data")
    if (
        isinstance(data, dict)
        and isinstance(data.get("data"), dict)
        and isinstance(data.get("metadata"), dict)
    ):
        data = data["data"]
    value = data.get(field) if isinstance(data, dict) else None
    if not isinstance(value, str):
        raise BadSettings(f"{reference}: the secret has no text {field!r}; version 2 wants secret/data/path")
    return value


def _token(reference: str, environ: Mapping[str, str]) -> str:
    file = environ.get("VAULT_TOKEN_FILE", "")
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretUnavailable(f"{reference}: VAULT_TOKEN_FILE {file} cannot be read") from error
    token = environ.get("VAULT_TOKEN", "").strip()
    if not token:
        raise BadSettings(f"{reference} takes VAULT_TOKEN or VAULT_TOKEN_FILE")
    return token
