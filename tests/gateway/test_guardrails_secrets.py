"""Credentials: found by shape, swallowed to their end."""

import pytest

from gateway.guardrails import secrets
from gateway.guardrails.base import Check
from gateway.guardrails.policy import TextScreen
from registry.errors import BadInput

SCREEN = TextScreen((Check("secrets", "redact", secrets.build({})),), "output")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key sk-abc123DEF456ghi789jkl012mno!", "key [OPENAI_KEY]!"),
        ("sk-proj-Ab12_Cd34-Ef56Gh78Ij90Kl12Mn34Op56 .", "[OPENAI_KEY] ."),
        ("AKIAIOSFODNN7EXAMPLE", "[AWS_ACCESS_KEY]"),
        (
            "aws_secret_access_key = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'",
            "[AWS_SECRET_KEY]'",
        ),
        ("ghp_" + "a1B2" * 9 + ".", "[GITHUB_TOKEN]."),
        ("xoxb-123456789012-abcdefGHIJKL", "[SLACK_TOKEN]"),
        ("AIza" + "Sy0-" * 8 + "abc", "[GOOGLE_KEY]"),
        ("sk_live_" + "4eC39HqLyjWDarjt", "[STRIPE_KEY]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmN, ok", "[JWT], ok"),
        ("postgres://app:s3cret@db/x", "[URL_PASSWORD]db/x"),
        ("a\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\naC1rZXk=\n", "a\n[PRIVATE_KEY]"),
    ],
)
def test_credentials_are_redacted_whole(text: str, expected: str) -> None:
    assert SCREEN.apply(text).text == expected


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-is-a-fine-library-for-machine-learning",
        "task-1234567890abcdefghijklm",
        "AKIA is a prefix",
        "-----BEGIN CERTIFICATE-----\nMIIB",
        "https://example.org:8080/path@x",
        "eyJ is how they start",
        "ghp_short",
    ],
)
def test_what_only_resembles_a_credential_is_left(text: str) -> None:
    assert SCREEN.apply(text).text == text


def test_an_unknown_type_offers_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'github_token'"):
        secrets.build({"types": ["github-token"]})
