"""
Settings: `sluicegate.yaml`, then environment variables, then defaults that need neither.

The file has a section each for registry, gateway, rag and evals (training has `params.yaml`);
`SLUICEGATE_<SECTION>__<KEY>` overrides one value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints
from urllib.parse import urlsplit

import yaml

from registry import parse
from registry.entities import UserRole
from registry.errors import BadInput, BadSettings

T = TypeVar("T")
FILE = "sluicegate.yaml"
PREFIX = "SLUICEGATE_"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Whose signed tokens (JWT) are taken beside those of users."""

    issuer: str = ""
    """The `iss` of tokens, to the character; an https URL. Empty: no such tokens are taken."""
    audience: str = ""
    """What `aud` of a token has to name."""
    roles_claim: str = "roles"
    """The claim that says what somebody may do, such as `groups` or `realm_access.roles`."""
    roles: Mapping[str, UserRole] = field(default_factory=dict)
    """Value of that claim → role here; of several the highest counts."""
    jwks_url: str = ""
    """Where the issuer's keys are; empty asks `<issuer>/.well-known/openid-configuration`."""

    def __post_init__(self) -> None:
        """Refuse what would let in nobody, or anybody."""
        if not self.issuer:
            if self.audience or self.roles or self.jwks_url:
                raise BadInput("issuer: is missing")
            return
        for name, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url or self.issuer)):
            parts = urlsplit(url)
            if not parts.hostname or not (
                parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
            ):
                raise BadInput(f"{name}: {url!r} is no https URL; http is for this machine alone")
        if not self.audience:
            raise BadInput("audience: is missing; without it a token for any other service would do here")
        if not self.roles:
            raise BadInput("roles: map at least one value of the claim to viewer, editor, promoter or admin")


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The `registry` section."""

    home: Path = Path(".sluicegate")
    """Folder of everything embedded: database, artifacts, indexes, keys. Relative to the file."""
    database_url: str = ""
    """SQLAlchemy URL; empty means SQLite at `<home>/registry.db`."""
    artifacts: str = ""
    """Folder of the content-addressed blobs, or a URL such as `s3://…`; empty is `<home>/artifacts`."""
    evidence_hours: float = 168.0
    """How long evidence signed here stays valid."""
    evidence_signer: str = ""
    """What signs evidence: `file:PATH` or `exec:COMMAND`; empty is `<home>/keys/evidence.pem`."""
    audit_signer: str = ""
    """What signs the audit chain: as `evidence_signer`; empty is `<home>/keys/audit.pem`."""
    audit_keys: tuple[str, ...] = ()
    """Ids of the keys that may sign the audit chain; empty trusts each machine's key when it first signs."""
    audit_days: int = 400
    """How long the bodies of admin records are kept before `registry audit prune` empties them."""
    decision_days: int = 190
    """The same for decisions of the gateway about requests."""
    oidc: OidcSettings = field(default_factory=OidcSettings)
    """Whose signed tokens are taken beside those of users."""

    @property
    def url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'registry.db'}"

    @property
    def artifact_store(self) -> str:
        """Folder or URL of the artifact store in force."""
        return self.artifacts or str(self.home / "artifacts")

    @property
    def artifact_cache(self) -> Path:
        """Folder for local copies of what a remote artifact store holds."""
        return self.home / "cache" / "artifacts"

    @property
    def signing_key(self) -> Path:
        """The key file this machine signs evidence with, where no signer is named."""
        return self.home / "keys" / "evidence.pem"

    @property
    def audit_key(self) -> Path:
        """The key file this machine signs the audit chain with, where no signer is named."""
        return self.home / "keys" / "audit.pem"

    @property
    def audit_anchor(self) -> Path:
        """The last head of the audit chain that this machine saw, outside of the database."""
        return self.home / "anchors" / "audit.json"


def find_file(start: Path | None = None) -> Path | None:
    """
    The settings file in force: `SLUICEGATE_CONFIG`, or the nearest upwards from *start*.

    Raises:
        BadSettings: SLUICEGATE_CONFIG names a file that is not there.
    """
    named = os.environ.get(PREFIX + "CONFIG")
    if named:
        path = Path(named)
        if not path.is_file():
            message = f"SLUICEGATE_CONFIG names {named!r}, which is not a file"
            raise BadSettings(message)
        return path
    folder = (start or Path.cwd()).resolve()
    for parent in (folder, *folder.parents):
        if (parent / FILE).is_file():
            return parent / FILE
    return None


def load(section: str, shape: type[T], environ: Mapping[str, str] | None = None) -> T:
    """
    The settings of one package.

    Raises:
        BadSettings: unknown section or key (with its line and the nearest valid one), or a value
            of the wrong type, in the file or in the environment.
    """
    env = os.environ if environ is None else environ
    path = find_file()
    try:
        values = _section(path, section, shape) if path else {}
        values |= _overrides(env, section, shape)
        settings = parse.build(values, shape, source="environment" if not path else str(path))
    except BadSettings:
        raise
    except BadInput as error:
        raise BadSettings(error.message) from error
    return settings


def registry_settings() -> RegistrySettings:
    """The `registry` section, its folders made absolute against the file's own folder."""
    settings = load("registry", RegistrySettings)
    path = find_file()
    base = path.parent if path else Path.cwd()
    return replace(settings, home=(base / settings.home).resolve())


def _section(path: Path, section: str, shape: type) -> dict[str, Any]:
    """The plain values of one section, once they are known to be valid."""
    values = getattr(parse.read(path, _Document), section)
    if not values:
        return {}
    _located(path, section, shape)
    return dict(values)


def _located(path: Path, section: str, shape: type) -> None:
    """Check only *section* of the file, keeping the line numbers of the whole."""
    node = yaml.compose(path.read_text())
    assert isinstance(node, yaml.MappingNode)  # noqa: S101 - parse.read has checked it
    for key, value in node.value:
        if key.value == section:
            text = "\n" * value.start_mark.line + " " * value.start_mark.column
            text += path.read_text()[value.start_mark.index : value.end_mark.index]
            parse.loads(text, shape, source=f"{path} [{section}]")


@dataclass(frozen=True, slots=True)
class _Document:
    registry: Mapping[str, Any] | None = None
    gateway: Mapping[str, Any] | None = None
    evals: Mapping[str, Any] | None = None
    rag: Mapping[str, Any] | None = None


def _overrides(env: Mapping[str, str], section: str, shape: type) -> dict[str, Any]:
    """Values of `SLUICEGATE_<SECTION>__<KEY>`; text stays text where the field wants text."""
    start = f"{PREFIX}{section.upper()}__"
    assert is_dataclass(shape)  # noqa: S101
    hints = get_type_hints(shape)
    valid = {name: f"{start}{name.upper()}" for name in hints}
    result: dict[str, Any] = {}
    for variable, text in env.items():
        if not variable.startswith(start):
            continue
        name = variable[len(start) :].lower()
        if name not in valid:
            message = f"{variable}: unknown setting{parse.nearest(variable, valid.values())}"
            raise BadSettings(message)
        try:
            result[name] = text if hints[name] in (str, Path) else yaml.safe_load(text)
        except yaml.YAMLError as error:
            message = f"{variable}: not a valid value"
            raise BadSettings(message) from error
    return result
