"""
Who somebody is, as an OpenID provider says: signed tokens (JWT) instead of tokens of this registry.

A token counts when it is signed by a key that the issuer publishes, with the one algorithm that fits this key
(RS256, ES256, EdDSA), is for our audience and within its time. Its subject acts as `oidc:<sub>`, with the
highest role that its claim is mapped to. Keys are fetched when they are needed, never inside a transaction.

Source: RFC 7519; RFC 8725, sections 3.1 to 3.10; OpenID Connect Discovery 1.0, section 4.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from registry.entities import Actor, UserRole
from registry.entities.people import OIDC
from registry.errors import BadSettings, Forbidden, IssuerUnavailable, SecretUnavailable, Unauthorized
from registry.secrets.keepers import ask
from registry.settings import OidcSettings

if TYPE_CHECKING:  # PyJWT is imported when the first token comes
    from jwt import PyJWK

_LEEWAY_S = 60
_FRESH_S = 3600.0
_LEAST_S = 10.0
"""Between two fetches, whatever tokens name unknown keys."""
_WAIT_S = 10.0
_MOST_STALE_S = 86_400.0
"""For how long keys count while the issuer cannot be asked."""
_MOST_TOKEN = 16_384
_MOST_KEYS = 100
_MOST_SUBJECT = 100
_LEAST_RSA_BITS = 2048
_ROLES: tuple[UserRole, ...] = ("viewer", "editor", "promoter", "admin")
_KINDS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
"""Kind and curve of a key → the one algorithm it is taken for."""
_WHO = "the issuer of registry.oidc"
_log = logging.getLogger(__name__)


class _Key(NamedTuple):
    key: PyJWK
    algorithm: str


def is_token(text: str) -> bool:
    """Whether *text* has the form of a signed JWT, which no token of a user has."""
    return text.count(".") == 2 and text.startswith("ey")


class Verifier:
    """Knows the issuer's keys. Thread-safe; shared by all who ask."""

    def __init__(self, settings: OidcSettings, *, now: Callable[[], float] = monotonic) -> None:
        """Nothing is fetched yet."""
        self._settings = settings
        self._now = now
        self._fetching = threading.Lock()
        self._keys: Mapping[str, _Key] = {}
        self._fetched_s = self._tried_s = float("-inf")

    def actor(self, token: str) -> Actor:
        """
        Who shows *token*. May wait some seconds for the issuer.

        Raises:
            Unauthorized: the token does not hold; the message says in which respect.
            Forbidden: it holds, and maps to no role.
            IssuerUnavailable: the issuer's keys are not known and cannot be had.
        """
        claims = self._claims(token)
        subject = claims.get("sub")
        if (
            not isinstance(subject, str)
            or not 1 <= len(subject) <= _MOST_SUBJECT
            or not subject.isprintable()
        ):
            message = f"the token's sub is not 1 to {_MOST_SUBJECT} printable characters"
            raise Unauthorized(message)
        role = self._role(claims)
        if role is None:
            message = (
                f"{OIDC}{subject} has no role here: its claim {self._settings.roles_claim} maps to none in"
                " registry.oidc.roles"
            )
            raise Forbidden(message)
        return Actor(f"{OIDC}{subject}", role)

    def _claims(self, token: str) -> dict[str, Any]:
        import jwt

        if len(token) > _MOST_TOKEN:
            raise Unauthorized(f"the token has more than {_MOST_TOKEN} characters")
        try:
            head = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise Unauthorized("the token is not a signed JWT") from None
        if "crit" in head:
            raise Unauthorized("the token's header names extensions (crit) that are not understood here")
        if head.get("alg") not in _KINDS.values():
            raise Unauthorized(f"the token's alg is none of {', '.join(_KINDS.values())}")
        name = head.get("kid")
        found = self._key(name if isinstance(name, str) else None)
        if head.get("alg") != found.algorithm:
            message = f"the token's alg is not {found.algorithm}, which its key is for"
            raise Unauthorized(message)
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                found.key,
                algorithms=[found.algorithm],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthorized(f"the token {_why(error)}") from None
        return claims

    def _role(self, claims: Mapping[str, Any]) -> UserRole | None:
        said = claims.get(self._settings.roles_claim)
        if said is None:
            said = claims
            for part in self._settings.roles_claim.split("."):
                said = said.get(part) if isinstance(said, dict) else None
        values = [said, *said.split()] if isinstance(said, str) else said if isinstance(said, list) else []
        roles = self._settings.roles
        found = [roles[value] for value in values if isinstance(value, str) and value in roles]
        return max(found, key=_ROLES.index, default=None)

    def _key(self, name: str | None) -> _Key:
        """The key called *name*, fetched anew where it is unknown; without a name the only one there is."""
        found = self._find(name)
        if found is None or self._now() - self._fetched_s >= _FRESH_S:
            self._fetch(name, wait_s=_WAIT_S if found is None else 0.0)
            found = self._find(name)
        if self._now() - self._fetched_s >= _MOST_STALE_S:
            raise IssuerUnavailable
        if found is None:
            message = "the token's kid names no key of the issuer" if name else "the token names no key (kid)"
            raise Unauthorized(message)
        return found

    def _find(self, name: str | None) -> _Key | None:
        keys = self._keys
        if name is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(name)

    def _fetch(self, name: str | None, wait_s: float) -> None:
        """Read the issuer's keys, unless that was just tried; waits at most *wait_s* for who is doing so."""
        if not self._fetching.acquire(timeout=wait_s):
            return
        try:
            if self._now() - self._tried_s < _LEAST_S or (wait_s and self._find(name) is not None):
                return
            self._tried_s = self._now()
            self._keys = _fetched(self._settings)
            self._fetched_s = self._now()
        except IssuerUnavailable as error:
            if not self._keys:
                raise
            _log.warning("the issuer's last known keys are used: %s", error.message)
        finally:
            self._fetching.release()


def _fetched(settings: OidcSettings) -> dict[str, _Key]:
    """
    The keys that the issuer publishes.

    Raises:
        IssuerUnavailable: it does not answer, is another than it should be, or publishes none that fits.
    """
    where = settings.jwks_url
    if not where:
        found = _asked(f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != settings.issuer:
            raise IssuerUnavailable(f"{_WHO} calls itself something else than {settings.issuer}")
        where = str(found.get("jwks_uri", ""))
        if urlsplit(where).scheme != urlsplit(settings.issuer).scheme:
            raise IssuerUnavailable(
                f"{_WHO} has a jwks_uri that is no {urlsplit(settings.issuer).scheme} URL"
            )
    listed = _asked(where).get("keys")
    made: dict[str, _Key] = {}
    for one in listed[:_MOST_KEYS] if isinstance(listed, list) else ():
        key = _made(one) if isinstance(one, dict) else None
        if key is not None:
            made[str(one.get("kid", ""))] = key
    if not made:
        raise IssuerUnavailable(f"{_WHO} publishes no key for RS256, ES256 or EdDSA")
    return made


def _asked(url: str) -> dict[str, Any]:
    try:
        status, found = ask(url, {"accept": "application/json"}, who=_WHO)
    except (BadSettings, SecretUnavailable) as error:
        raise IssuerUnavailable(error.message) from error
    if status != 200 or not found:
        raise IssuerUnavailable(
            f"{_WHO} answers {urlsplit(url).path} with status {status} and no JSON object"
        )
    return found


def _made(listed: Mapping[str, Any]) -> _Key | None:
    """A key of the one algorithm it fits; None where it is for something else."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    kind = listed.get("kty")
    algorithm = _KINDS.get((str(kind), None if kind == "RSA" else str(listed.get("crv"))))
    if algorithm is None or listed.get("use", "sig") != "sig" or listed.get("alg", algorithm) != algorithm:
        return None
    try:
        # Nothing private is kept, should an issuer publish it.
        public = {
            name: value for name, value in listed.items() if name not in ("d", "p", "q", "dp", "dq", "qi")
        }
        key = jwt.PyJWK(public, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _LEAST_RSA_BITS:
        return None
    return _Key(key, algorithm)


def _why(error: Exception) -> str:
    import jwt

    meanings: tuple[tuple[type[Exception], str], ...] = (
        (jwt.ExpiredSignatureError, "has expired"),
        (jwt.ImmatureSignatureError, "is not valid yet"),
        (jwt.InvalidAudienceError, "is for another audience"),
        (jwt.InvalidIssuerError, "is of another issuer"),
        (jwt.MissingRequiredClaimError, "lacks one of exp, iss, aud and sub"),
        (jwt.InvalidSignatureError, "has a signature that its key did not make"),
    )
    return next((text for kind, text in meanings if isinstance(error, kind)), "is not a valid JWT")
