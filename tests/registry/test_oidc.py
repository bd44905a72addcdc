"""A token of the issuer says who acts and as what; any other is refused, and the issuer not asked often."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry import oidc, parse
from registry.entities import Actor, UserRole
from registry.errors import BadInput, Forbidden, IssuerUnavailable, PlatformError, Unauthorized
from registry.oidc import Verifier
from registry.settings import OidcSettings, RegistrySettings
from tests.fakes.issuer import AUDIENCE, EC, ED, RSA, Issuer, encoded, fresh_keys, issuer

ROLES: dict[str, UserRole] = {
    "gate-viewer": "viewer", "gate-editor": "editor", "gate-promoter": "promoter", "gate-admin": "admin",
}  # fmt: skip
KEYS = fresh_keys()


@pytest.fixture(scope="module")
def running() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


@pytest.fixture
def idp(running: Issuer) -> Issuer:
    running.keys, running.down = dict(KEYS), False
    running.says, running.extra = {}, {}
    running.asked.clear()
    return running


def settings_of(idp: Issuer, **changes: Any) -> OidcSettings:
    return OidcSettings(**({"issuer": idp.url, "audience": AUDIENCE, "roles": ROLES} | changes))


@pytest.fixture
def verifier(idp: Issuer) -> Verifier:
    return Verifier(settings_of(idp))


@pytest.mark.parametrize("kid", [RSA, EC, ED])
def test_a_token_of_each_algorithm_says_who_acts(idp: Issuer, verifier: Verifier, kid: str) -> None:
    assert verifier.actor(idp.token(kid)) == Actor("oidc:u-17", "viewer")
    assert idp.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    ("claim", "said", "role"),
    [
        ("roles", {"roles": ["x", "gate-editor", "gate-viewer"]}, "editor"),
        ("roles", {"roles": "gate-admin"}, "admin"),
        ("scope", {"scope": "openid gate-promoter"}, "promoter"),
        ("realm_access.roles", {"realm_access": {"roles": ["gate-admin"]}}, "admin"),
        ("https://acme.com/roles", {"https://acme.com/roles": ["gate-editor"]}, "editor"),
    ],
)
def test_the_highest_role_that_a_claim_maps_to_counts(
    idp: Issuer, claim: str, said: dict[str, Any], role: UserRole
) -> None:
    verifier = Verifier(settings_of(idp, roles_claim=claim))
    assert verifier.actor(idp.token(**({"roles": None} | said))).role == role


@pytest.mark.parametrize("said", [None, [], ["other"], "other", 7, {"gate-admin": True}, [["gate-admin"]]])
def test_somebody_known_without_a_role_is_forbidden(idp: Issuer, verifier: Verifier, said: Any) -> None:
    with pytest.raises(Forbidden, match="oidc:u-17 has no role here"):
        verifier.actor(idp.token(roles=said))


def now(idp: Issuer, seconds: int) -> int:
    return int(idp.claims()["iat"]) + seconds


def tampered(idp: Issuer) -> str:
    head, _, signature = idp.token().split(".")
    return f"{head}.{encoded(json.dumps(idp.claims(roles=['gate-admin'])).encode())}.{signature}"


BAD: dict[str, tuple[Callable[[Issuer], str], str]] = {
    "expired": (lambda i: i.token(exp=now(i, -61)), "has expired"),
    "not yet": (lambda i: i.token(nbf=now(i, 90)), "is not valid yet"),
    "of the future": (lambda i: i.token(iat=now(i, 90)), "is not valid yet"),
    "without an end": (lambda i: i.token(exp=None), "lacks one of exp"),
    "for another audience": (lambda i: i.token(aud="other"), "is for another audience"),
    "for other audiences": (lambda i: i.token(aud=["a", "b"]), "is for another audience"),
    "for nobody": (lambda i: i.token(aud=None), "lacks one of exp"),
    "of another issuer": (lambda i: i.token(iss=i.url + "/"), "is of another issuer"),
    "of no issuer": (lambda i: i.token(iss=None), "lacks one of exp"),
    "about nobody": (lambda i: i.token(sub=None), "lacks one of exp"),
    "about an empty name": (lambda i: i.token(sub=""), "sub is not 1 to 100"),
    "about a long name": (lambda i: i.token(sub="x" * 101), "sub is not 1 to 100"),
    "about two lines": (lambda i: i.token(sub="a\nb"), "sub is not 1 to 100"),
    "tampered": (tampered, "has a signature that its key did not make"),
    "of a key that is not published": (lambda i: i.token("rsa-9", key=KEYS[RSA]), "kid names no key"),
    "of another key": (
        lambda i: i.token(key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        "has a signature that its key did not make",
    ),
    "of another curve's key": (
        lambda i: i.token(EC, key=ec.generate_private_key(ec.SECP256R1())),
        "signature",
    ),
    "without a kid": (lambda i: i.token(None), "names no key"),
    "unsigned": (lambda i: i.forged({"alg": "none", "kid": RSA}), "alg is none of"),
    "unsigned in capitals": (lambda i: i.forged({"alg": "NoNe", "kid": RSA}), "alg is none of"),
    "signed with the public key": (
        lambda i: i.forged({"alg": "HS256", "kid": RSA}, i.pem(RSA)),
        "alg is none of",
    ),
    "of an algorithm that is not its key's": (
        lambda i: i.forged({"alg": "ES256", "kid": RSA}, b"x"),
        "alg is not RS256",
    ),
    "of a key in its own header": (
        lambda i: i.forged({"alg": "RS256", "kid": "own", "jwk": {"kty": "oct", "k": "eA"}}, b"x"),
        "kid names no key",
    ),
    "with extensions": (lambda i: i.token(head={"crit": ["exp"]}), "crit|is not a signed JWT"),
    "too long": (lambda i: i.token(pad="x" * 20_000), "more than 16384"),
    "no header": (lambda _: "eyJ.eyJ.x", "is not a signed JWT"),
    "no base64": (lambda _: "ey*.ey*.**", "is not a signed JWT"),
    "a kid that is no text": (lambda i: i.forged({"alg": "RS256", "kid": 7}), "is not a signed JWT"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused_and_said_why(idp: Issuer, verifier: Verifier, name: str) -> None:
    verifier.actor(idp.token())
    make, said = BAD[name]
    token = make(idp)
    with pytest.raises(Unauthorized, match=said) as refused:
        verifier.actor(token)
    assert token not in refused.value.message
    assert refused.value.__cause__ is None


def test_a_minute_of_difference_between_clocks_is_allowed(idp: Issuer, verifier: Verifier) -> None:
    verifier.actor(idp.token(exp=now(idp, -50), nbf=now(idp, 50), iat=now(idp, 50)))


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def test_a_new_key_is_fetched_and_unknown_ones_not_more_than_every_ten_seconds(idp: Issuer) -> None:
    clock = Clock()
    verifier = Verifier(settings_of(idp), now=clock)
    verifier.actor(idp.token())
    fetches = len(idp.asked)
    for _ in range(20):
        with pytest.raises(Unauthorized):
            verifier.actor(idp.token("rsa-9", key=KEYS[RSA]))
    assert len(idp.asked) == fetches
    clock.s += 11
    new = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    idp.keys = {"rsa-2": new}
    assert verifier.actor(idp.token("rsa-2")).name == "oidc:u-17"
    assert len(idp.asked) == fetches * 2
    with pytest.raises(Unauthorized, match="kid names no key"):
        verifier.actor(idp.token(RSA, key=KEYS[RSA]))


def test_a_key_that_is_no_longer_published_ends_within_an_hour(idp: Issuer) -> None:
    clock = Clock()
    verifier = Verifier(settings_of(idp), now=clock)
    verifier.actor(idp.token())
    del idp.keys[RSA]
    clock.s += 3599
    verifier.actor(idp.token(RSA, key=KEYS[RSA]))
    clock.s += 2
    with pytest.raises(Unauthorized):
        verifier.actor(idp.token(RSA, key=KEYS[RSA]))


def test_an_issuer_that_is_away_is_done_without_for_a_day(
    idp: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    verifier = Verifier(settings_of(idp), now=clock)
    idp.down = True
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            verifier.actor(idp.token())
    assert len(idp.asked) == 1
    idp.down = False
    clock.s += 11
    verifier.actor(idp.token())
    idp.down = True
    clock.s += 3601
    verifier.actor(idp.token())
    assert "last known keys are used" in caplog.text
    clock.s += 86_400
    with pytest.raises(IssuerUnavailable):
        verifier.actor(idp.token())


@pytest.mark.parametrize(
    "says",
    [
        {"issuer": "https://elsewhere.example"},
        {"jwks_uri": "https://elsewhere.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
    ],
)
def test_discovery_that_leads_astray_is_not_followed(idp: Issuer, says: dict[str, Any]) -> None:
    idp.says = says
    with pytest.raises(IssuerUnavailable):
        Verifier(settings_of(idp)).actor(idp.token())
    assert idp.asked == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize("extra", [{"use": "enc"}, {"alg": "RS512"}, {"kty": "oct", "k": "eA"}])
def test_keys_for_something_else_are_not_taken(idp: Issuer, extra: dict[str, Any]) -> None:
    idp.extra = {RSA: extra}
    with pytest.raises(Unauthorized, match="kid names no key"):
        Verifier(settings_of(idp)).actor(idp.token(RSA))
    idp.keys = {RSA: KEYS[RSA]}
    with pytest.raises(IssuerUnavailable, match="publishes no key"):
        Verifier(settings_of(idp)).actor(idp.token(RSA))


def test_short_rsa_keys_are_not_taken(idp: Issuer) -> None:
    idp.keys["rsa-s"] = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - the point
    with pytest.warns(Warning, match="1024 bits"):
        token = idp.token("rsa-s")
    with pytest.raises(Unauthorized, match="kid names no key"):
        Verifier(settings_of(idp)).actor(token)


def test_the_only_key_needs_no_name_and_its_place_may_be_given(idp: Issuer) -> None:
    idp.keys = {ED: KEYS[ED]}
    verifier = Verifier(settings_of(idp, jwks_url=f"{idp.url}/keys"))
    token = idp.token(ED)
    head = encoded(json.dumps({"alg": "EdDSA", "typ": "JWT"}).encode())
    assert verifier.actor(token).name == "oidc:u-17"
    with pytest.raises(Unauthorized, match="signature"):
        verifier.actor(f"{head}.{token.split('.', 1)[1]}")  # the signature was over another header
    assert idp.asked == ["/keys"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 63))
def test_no_token_with_one_character_changed_holds(idp: Issuer, place: int, letter: int) -> None:
    verifier = _warm(idp)
    token = idp.token()
    place %= len(token) - 1  # the last character of base64 may have bits that mean nothing
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    changed = token[:place] + alphabet[letter] + token[place + 1 :]
    if changed != token:
        with pytest.raises(PlatformError):
            verifier.actor(changed)


_WARM: dict[str, Verifier] = {}


def _warm(idp: Issuer) -> Verifier:
    return _WARM.setdefault(idp.url, Verifier(settings_of(idp)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"issuer": "http://idp.example", "audience": "a", "roles": ROLES}, "is no https URL"),
        ({"issuer": "idp", "audience": "a", "roles": ROLES}, "is no https URL"),
        ({"issuer": "https://i", "roles": ROLES}, "audience: is missing"),
        ({"issuer": "https://i", "audience": "a"}, "roles: map at least one"),
        ({"audience": "a"}, "issuer: is missing"),
        (
            {"issuer": "https://i", "audience": "a", "roles": ROLES, "jwks_url": "http://i/keys"},
            "jwks_url: 'http://i/keys' is no https URL",
        ),
    ],
)
def test_settings_that_let_in_nobody_or_anybody_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        OidcSettings(**wrong)


def test_settings_map_only_to_roles_there_are() -> None:
    text = "oidc: {issuer: 'https://i', audience: a, roles: {x: root}}"
    with pytest.raises(BadInput, match="'root' is not one of viewer, editor, promoter, admin"):
        parse.loads(text, RegistrySettings, source="sluicegate.yaml")


def test_tokens_of_users_are_never_taken_for_jwts() -> None:
    from registry.access import TOKEN_PREFIX

    assert not oidc.is_token(TOKEN_PREFIX + "a.b.c")


def test_a_gate_policy_names_approvers_by_their_subject() -> None:
    from registry.entities import GatePolicy

    named = ("oidc:ann@example.org", "bob")
    policy = GatePolicy(suites=("quality",), approvals=1, approvers=named)
    assert policy.approvers == named
    for wrong in ("oidc:", "oidc:a\nb", "oidc:" + "x" * 101, "ldap:ann"):
        with pytest.raises(BadInput):
            GatePolicy(suites=("quality",), approvals=1, approvers=(wrong,))
