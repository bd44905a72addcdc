"""References lead to secrets, and nothing but the secret's user ever sees it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import secrets
from registry.errors import BadSettings, PlatformError, SecretUnavailable
from tests.fakes.keepers import ACCESS, NAMESPACE, REGION, SECRET, TOKEN, Keepers, keepers

VALUE = "sk-very-secret-4711"
GCP = "projects/p/secrets/openai/versions/latest"
ARN = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:openai-AbCdEf"


@pytest.fixture(scope="module")
def running() -> Iterator[Keepers]:
    with keepers() as made:
        yield made


@pytest.fixture
def keeper(running: Keepers, monkeypatch: pytest.MonkeyPatch) -> Keepers:
    running.down = False
    running.secrets = {
        "secret/data/team/openai": {"key": VALUE, "number": 3},
        "kv1/openai": {"key": VALUE, "data": "x"},
        "openai": json.dumps({"key": VALUE}),
        "plain": f"{VALUE}\n",
        ARN: VALUE,
        "binary": b"\xff\xfe",
        GCP: VALUE,
        "projects/p/secrets/json/versions/7": json.dumps({"key": VALUE}),
        "projects/p/secrets/binary/versions/1": b"\xff\xfe",
    }
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": running.url, "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return running


def environ(keeper: Keepers, **changes: str) -> dict[str, str]:
    return {
        "VAULT_ADDR": keeper.url, "VAULT_TOKEN": TOKEN, "VAULT_NAMESPACE": NAMESPACE,
        "AWS_REGION": REGION, "GCE_METADATA_HOST": keeper.host,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"{keeper.url}/", "NAMED": f" {VALUE}\n",
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    "reference",
    [
        "env:NAMED",
        "vault:secret/data/team/openai#key",
        "vault:/kv1/openai#key",
        "aws:openai#key",
        "aws:plain",
        f"aws:{ARN}",
        f"gcp:{GCP}",
        "gcp:projects/p/secrets/json/versions/7#key",
    ],
)
def test_a_reference_leads_to_the_secret(keeper: Keepers, reference: str) -> None:
    assert secrets.resolve(reference, environ(keeper)) == VALUE


def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for value in ("one", "two"):
        file.write_text(value + "\n")
        assert secrets.resolve(f"file:{file}", {}) == value


def test_vaults_token_may_be_in_a_file_that_an_agent_renews(keeper: Keepers, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    env = environ(keeper, VAULT_TOKEN="old", VAULT_TOKEN_FILE=str(file))
    assert secrets.resolve("vault:secret/data/team/openai#key", env) == VALUE


def test_an_arn_says_its_own_region(keeper: Keepers) -> None:
    assert secrets.resolve(f"aws:{ARN}", environ(keeper, AWS_REGION="us-east-2")) == VALUE


@pytest.mark.parametrize("kind", ["service_account", "authorized_user"])
def test_googles_credentials_may_be_a_file(keeper: Keepers, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "adc.json"
    account = {
        "type": kind, "client_email": "sa@p.iam.gserviceaccount.com", "private_key": keeper.pem(),
        "private_key_id": "k1", "client_id": "c", "client_secret": "s", "refresh_token": "r",
        "token_uri": f"{keeper.url}/token",
    }  # fmt: skip
    file.write_text(json.dumps(account))
    env = environ(keeper, GOOGLE_APPLICATION_CREDENTIALS=str(file), GCE_METADATA_HOST="127.0.0.1:9")
    assert secrets.resolve(f"gcp:{GCP}", env) == VALUE


@pytest.mark.parametrize(
    ("reference", "changes", "kind", "said"),
    [
        ("env:NONE", {}, BadSettings, "env:NONE is not set"),
        ("env:EMPTY", {"EMPTY": " "}, BadSettings, "env:EMPTY is empty"),
        ("env:TWO", {"TWO": "a\nb"}, BadSettings, "one line of printable"),
        ("file:/nonexistent/key", {}, SecretUnavailable, "No such file"),
        ("vault:secret/data/team/openai", {}, BadSettings, "names no field"),
        ("vault:secret/data/team/openai#none", {}, BadSettings, "has no text 'none'"),
        ("vault:secret/data/team/openai#number", {}, BadSettings, "has no text 'number'"),
        ("vault:secret/team/openai#key", {}, SecretUnavailable, "has no such secret (status 404)"),
        ("vault:secret/data/x#key", {"VAULT_TOKEN": "wrong-token"}, SecretUnavailable, "does not allow it"),
        ("vault:secret/data/x#key", {"VAULT_NAMESPACE": ""}, SecretUnavailable, "does not allow it"),
        ("vault:secret/data/x#key", {"VAULT_TOKEN": ""}, BadSettings, "VAULT_TOKEN or VAULT_TOKEN_FILE"),
        ("vault:secret/data/x#key", {"VAULT_TOKEN": "a\r\nx: b"}, SecretUnavailable, "ValueError"),
        ("vault:secret/data/x#key", {"VAULT_ADDR": ""}, BadSettings, "VAULT_ADDR"),
        ("vault:secret/data/x#key", {"VAULT_ADDR": "ftp://x"}, BadSettings, "http or https URL"),
        ("vault:secret/data/x#key", {"VAULT_ADDR": "http://127.0.0.1:9"}, SecretUnavailable, "not answer"),
        ("aws:none", {}, SecretUnavailable, "ResourceNotFoundException"),
        ("aws:openai", {"AWS_REGION": "us-east-1"}, SecretUnavailable, "InvalidSignatureException"),
        ("aws:openai", {"AWS_REGION": ""}, BadSettings, "AWS_REGION"),
        ("aws:openai#none", {}, BadSettings, "no JSON object with a text 'none'"),
        ("aws:plain#key", {}, BadSettings, "no JSON object with a text 'key'"),
        ("aws:binary", {}, BadSettings, "is binary"),
        ("gcp:openai", {}, BadSettings, "is not projects/"),
        ("gcp:projects/p/secrets/../versions/1", {}, BadSettings, "is not projects/"),
        ("gcp:projects/p/secrets/none/versions/1", {}, SecretUnavailable, "no such secret"),
        ("gcp:projects/p/secrets/binary/versions/1", {}, BadSettings, "is binary"),
        (f"gcp:{GCP}", {"GCE_METADATA_HOST": "127.0.0.1:9"}, SecretUnavailable, "metadata server does not"),
        (f"gcp:{GCP}", {"GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent"}, BadSettings, "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_without_any_secret(
    keeper: Keepers, reference: str, changes: dict[str, str], kind: type[PlatformError], said: str
) -> None:
    env = environ(keeper, **changes)
    if changes.get("AWS_REGION") == "":
        env.pop("AWS_REGION")
    with pytest.raises(kind) as refused:
        secrets.resolve(reference, env)
    message = refused.value.message
    assert said in message
    assert not any(word in message for word in (VALUE, TOKEN, SECRET, "wrong-token", "x: b"))
    chain: BaseException | None = refused.value.__cause__
    assert not any(word in repr(chain) for word in (VALUE, TOKEN, SECRET, "wrong-token"))


@pytest.mark.parametrize("reference", ["vault:secret/data/team/openai#key", "aws:openai", f"gcp:{GCP}"])
def test_a_keeper_that_is_down_says_so(keeper: Keepers, reference: str) -> None:
    keeper.down = True
    with pytest.raises(SecretUnavailable):
        secrets.resolve(reference, environ(keeper))


@pytest.mark.parametrize("literal", ["sk-proj-abc", "Bearer x", "sk:abc", "", "env:", "hvs.x:y", "env:A\nB"])
def test_a_secret_in_plain_text_is_refused_with_a_remedy_and_not_repeated(literal: str) -> None:
    with pytest.raises(BadSettings, match="write env:NAME") as refused:
        secrets.check(literal)
    assert not literal or literal not in refused.value.message.replace("env:…", "").replace("env:NAME", "")


@given(st.text(max_size=40))
def test_whatever_is_no_known_scheme_is_refused(text: str) -> None:
    known = ("aws:", "env:", "file:", "gcp:", "vault:")
    if not text.startswith(known):
        with pytest.raises(BadSettings):
            secrets.check(text)


def test_without_botocore_the_extra_is_named(keeper: Keepers, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from registry.errors import MissingExtra

    monkeypatch.setitem(sys.modules, "botocore.config", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sluicegate\[aws\]'"):
        secrets.resolve("aws:openai", environ(keeper))


def test_the_fake_of_aws_accepts_no_other_signature(keeper: Keepers) -> None:
    scope = f"{ACCESS}/20261124/{REGION}/secretsmanager/aws4_request"
    headers: dict[str, Any] = {
        "x-amz-target": "secretsmanager.GetSecretValue", "x-amz-date": "20261124T000000Z", "host": "x",
        "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, "
        f"SignedHeaders=host;x-amz-date;x-amz-target, Signature={'0' * 64}",
    }  # fmt: skip
    status, answer = keeper.answer("POST", "/", headers, b'{"SecretId": "openai"}')
    assert (status, answer["__type"]) == (400, "InvalidSignatureException")
