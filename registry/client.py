"""
The registry's HTTP API as a Python object; nothing beyond the standard library.

Methods are called as the verbs are and answer the plain JSON of `registry … --json`. What the API refuses is
raised as the error it is on the command line: `EvidenceMissing`, `Forbidden`, `NotFound` …
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from registry import errors
from registry.errors import BadInput, PlatformError, StoreUnavailable

Answer = dict[str, Any]
Role = Literal["viewer", "editor", "promoter", "admin"]
_MOST_BYTES = 64_000_000
_AGAIN = frozenset({502, 503, 504})


class RegistryClient:
    """
    One registry, as one of its users. Every call is one connection: safe to share between threads.

    Every method may raise StoreUnavailable (nobody answers in time, or the registry is away), Unauthorized,
    Forbidden, BadInput and NotFound.

    >>> RegistryClient("ftp://x", "sgr-…")
    Traceback (most recent call last):
    registry.errors.BadInput: url: 'ftp://x' does not begin with http:// or https:// and a host
    """

    def __init__(self, url: str, token: str, *, timeout_s: float = 30.0, retries: int = 2) -> None:
        """
        Nothing is asked yet.

        Args:
            url: where the gateway listens, such as `https://gate.example.com`.
            token: of a user, `sgr-…`; for `served` and `render_served` an API key, `sk-sg-…`.
            timeout_s: for each connection, and each wait for bytes.
            retries: how often a read is repeated when the registry is away; what writes never is.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"url: {url!r} does not begin with http:// or https:// and a host")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._root = parts.path.rstrip("/") + "/api/v1"
        self._token = token
        self._timeout_s = timeout_s
        self._retries = retries

    # Versions

    def versions(
        self, kind: str | None = None, name: str | None = None, *, limit: int = 100, before: str | None = None
    ) -> Answer:
        """A page of `versions`, newest first; give *before* its `next` for the page after it."""
        return self._get("/versions", kind=kind, name=name, limit=limit, before=before)

    def every_version(self, kind: str | None = None, name: str | None = None) -> Iterator[Answer]:
        """All versions, newest first, page by page."""
        before = None
        while True:
            page = self.versions(kind, name, limit=1000, before=before)
            yield from page["versions"]
            before = page["next"]
            if before is None:
                return

    def version(self, group: str, ref: str) -> Answer:
        """One version with its content; *group* is prompts, models, releases …"""
        return self._get(f"/{_part(group)}/{_part(ref)}")

    def search(
        self, text: str, kind: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> Answer:
        """The newest version of each name that contains *text*, or what has that digest."""
        return self._get("/search", q=text, kind=kind, limit=limit, after=after)

    def diff(self, a: str, b: str) -> Answer:
        """What changed between two versions of one kind, such as `prompts/support:1`."""
        return self._get("/diff", a=a, b=b)

    def lineage(self, ref: str, direction: Literal["both", "up", "down"] = "both") -> Answer:
        """What a version was made of and what came of it."""
        return self._get("/lineage", ref=ref, direction=direction)

    def verify(self) -> Answer:
        """Whether everything in the registry is what its digest says."""
        return self._get("/verify")

    def push(
        self, group: Literal["guardrails", "gates", "judges", "tools", "prices"], file: Answer
    ) -> Answer:
        """Store a policy, judge, tool schema or price table; *file* is what its file says."""
        return self._post(f"/{_part(group)}", file)

    # Prompts

    def push_prompts(self, files: Sequence[str], *, dry_run: bool = False) -> Answer:
        """Store prompt files, given as text; all or none."""
        return self._post("/prompts", {"files": list(files), "dry_run": dry_run})

    def prompt_file(self, ref: str) -> str:
        """A prompt as the file it was pushed from."""
        text: str = self._get(f"/prompts/{_part(ref)}/file")["file"]
        return text

    def render(self, ref: str, values: Mapping[str, Any]) -> Answer:
        """The messages of a prompt, rendered by the registry."""
        return self._post(f"/prompts/{_part(ref)}/render", {"values": dict(values)})

    def prompt_diff(self, a: str, b: str, values: Mapping[str, Any] | None = None) -> Answer:
        """What changed between two prompts, and both rendered."""
        return self._post("/prompts/diff", {"a": a, "b": b, "values": dict(values or {})})

    def prompt_log(self, name: str, *, limit: int = 20, before: int | None = None) -> Answer:
        """Who pushed which version of a prompt when."""
        return self._get(f"/prompts/{_part(name)}/log", limit=limit, before=before)

    def labels(self, prompt: str | None = None) -> Answer:
        """Where labels point."""
        return self._get("/labels", prompt=prompt)

    def label(self, ref: str, label: str, *, expected: int | None = None) -> Answer:
        """Point a label at a prompt version; *expected*: only if its generation is this."""
        path = f"/prompts/{_part(_name(ref))}/labels/{_part(label)}"
        return self._ask("PUT", path, body={"ref": ref, "expected": expected})

    def unlabel(self, prompt: str, label: str) -> Answer:
        """Take a label away."""
        return self._ask("DELETE", f"/prompts/{_part(prompt)}/labels/{_part(label)}")

    # Releases and aliases

    def create_release(self, file: Answer, *, dry_run: bool = False) -> Answer:
        """Pin parts into a release; *file* is what a release file says. `candidate` then points at it."""
        return self._ask("POST", "/releases", query={"dry_run": dry_run or None}, body=file)

    def export_release(self, ref: str) -> bytes:
        """A release, all it pins and its evidence, as one tar."""
        return self._bytes("GET", f"/releases/{_part(ref)}/export")

    def aliases(self, name: str | None = None) -> Answer:
        """Where every alias points."""
        return self._get("/aliases", name=name)

    def promote(
        self,
        ref: str,
        to: str = "production",
        *,
        reason: str = "",
        evidence: Sequence[Answer] | None = None,
        dry_run: bool = False,
    ) -> Answer:
        """
        Move an alias to a release whose evidence holds.

        Raises:
            PromotionRefused: one of its kinds, which says why.
        """
        body = {"ref": ref, "reason": reason, "dry_run": dry_run}
        if evidence is not None:
            body["evidence"] = list(evidence)
        return self._post(f"{_alias(_name(ref), to)}/promote", body)

    def break_glass(self, ref: str, to: str = "production", *, reason: str) -> Answer:
        """Move an alias without evidence, in an emergency."""
        return self._post(f"{_alias(_name(ref), to)}/break-glass", {"ref": ref, "reason": reason})

    def rollback(self, name: str, alias: str = "production", *, reason: str = "") -> Answer:
        """Return an alias to the release it pointed at before."""
        return self._post(f"{_alias(name, alias)}/rollback", {"reason": reason})

    def history(
        self, name: str, *, alias: str | None = None, at: str | None = None, limit: int = 1000
    ) -> Answer:
        """Who moved which alias when and why; with *at* (RFC 3339) what each was then."""
        return self._get(f"/aliases/{_part(name)}/history", alias=alias, at=at, limit=limit)

    def was(self, name: str, at: str, alias: str = "production") -> Answer:
        """What an alias was at a time (RFC 3339), and who had made it so."""
        return self._get(f"{_alias(name, alias)}/was", at=at)

    def splits(self, name: str | None = None) -> Answer:
        """Which aliases' traffic is shared, and how."""
        return self._get("/splits", name=name)

    def split(
        self,
        name: str,
        alias: str = "production",
        *,
        arms: Mapping[str, float] | None = None,
        shadow: Answer | None = None,
        sticky: str = "user",
        reason: str = "",
        dry_run: bool = False,
    ) -> Answer:
        """
        Share an alias's traffic.

        Args:
            arms: release → percent.
            shadow: `ref`, `percent` and `usd_per_day` of a release that answers nobody.

        Raises:
            PromotionRefused: an arm lacks what a promotion needs.
        """
        body = {
            "arms": {ref: float(share) for ref, share in (arms or {}).items()},
            "shadow": shadow,
            "sticky": sticky,
            "reason": reason,
            "dry_run": dry_run,
        }
        return self._ask("PUT", f"{_alias(name, alias)}/split", body=body)

    def end_split(self, name: str, alias: str = "production", *, reason: str = "") -> Answer:
        """Give all traffic back to the alias's own release."""
        return self._ask("DELETE", f"{_alias(name, alias)}/split", query={"reason": reason or None})

    def approvals(self, name: str) -> Answer:
        """The approvals of a release's versions."""
        return self._get("/approvals", name=name)

    def approve(self, ref: str, alias: str = "production", *, comment: str = "") -> Answer:
        """Approve a release for an alias; never one's own."""
        return self._post(f"{_alias(_name(ref), alias)}/approvals", {"ref": ref, "comment": comment})

    def unapprove(self, ref: str, alias: str = "production") -> Answer:
        """Take back one's own approval."""
        return self._ask("DELETE", f"{_alias(_name(ref), alias)}/approvals", query={"ref": ref})

    # Feedback

    def feedback(
        self,
        release: str | None = None,
        *,
        name: str | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> Answer:
        """A page of what was said of answers, newest first; times as RFC 3339 writes them."""
        return self._get(
            "/feedback", release=release, name=name, since=since, until=until, limit=limit, before=before
        )

    # Evidence and keys

    def evidence(self, name: str) -> Answer:
        """The evidence on file about a release."""
        return self._get("/evidence", name=name)

    def envelope(self, digest: str, *, statement: bool = False) -> Answer:
        """An envelope as it was filed, or the statement in it."""
        return self._get(f"/evidence/{_part(digest)}", statement=statement or None)

    def file_evidence(self, envelope: Answer) -> Answer:
        """File a signed envelope."""
        return self._post("/evidence", envelope)

    def withdraw_evidence(self, digest: str, *, reason: str) -> Answer:
        """Take back evidence."""
        return self._post(f"/evidence/{_part(digest)}/withdraw", {"reason": reason})

    def runs(self, release: str | None = None, *, limit: int = 100) -> Answer:
        """Evaluation runs, newest first."""
        return self._get("/runs", release=release, limit=limit)

    def keys(self) -> Answer:
        """Every key ever trusted."""
        return self._get("/keys")

    def trust_key(self, public_key: str) -> Answer:
        """Accept evidence that an Ed25519 key signs, given in PEM."""
        return self._post("/keys", {"public_key": public_key})

    def retire_key(self, key_id: str) -> Answer:
        """Stop accepting what a key signs from now on."""
        return self._post(f"/keys/{_part(key_id)}/retire", {})

    def revoke_key(self, key_id: str) -> Answer:
        """Stop accepting a key's evidence, past and future."""
        return self._post(f"/keys/{_part(key_id)}/revoke", {})

    # People, audit

    def users(self) -> Answer:
        """Everybody who may or once might act."""
        return self._get("/users")

    def add_user(self, name: str, role: Role) -> Answer:
        """Make a user; `token` is in this answer and nowhere else."""
        return self._post("/users", {"name": name, "role": role})

    def change_user(self, name: str, role: Role) -> Answer:
        """Give a user another role."""
        return self._ask("PATCH", f"/users/{_part(name)}", body={"role": role})

    def revoke_user(self, name: str) -> Answer:
        """End a user's token for good."""
        return self._post(f"/users/{_part(name)}/revoke", {})

    def audit(self, *, limit: int = 100, before: int | None = None, **wanted: str) -> Answer:
        """Audit records, newest first; *wanted*: target, action, actor, since, until."""
        return self._get("/audit", limit=limit, before=before, **wanted)

    def verify_audit(self, *, every_signature: bool = False) -> Answer:
        """Check the whole chain, and every row against it."""
        return self._get("/audit/verify", every_signature=every_signature or None)

    def audit_head(self) -> Answer:
        """The signed end of the chain, to be kept elsewhere."""
        return self._get("/audit/head")

    # What a gateway serves, for an API key of it

    def served(self, model: str) -> Answer:
        """The prompt that is served under a name, from the gateway's memory."""
        return self._get(f"/served/{_part(model)}/prompt")

    def render_served(self, model: str, values: Mapping[str, Any], *, user: str = "") -> Answer:
        """The messages of the served prompt, and the model and parameters to call with them."""
        return self._post(f"/served/{_part(model)}/render", {"values": dict(values), "user": user})

    def _get(self, path: str, **query: Any) -> Answer:  # noqa: ANN401
        return self._ask("GET", path, query=query)

    def _post(self, path: str, body: Mapping[str, Any]) -> Answer:
        return self._ask("POST", path, body=body)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        data = self._bytes(method, path, query=query, body=body)
        try:
            answer: Answer = json.loads(data)
        except ValueError as error:
            raise StoreUnavailable(f"{self._host}: {path} answered something that is no JSON") from error
        return answer

    def _bytes(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> bytes:
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        target = f"{self._root}{path}" + (f"?{urlencode(given)}" if given else "")
        left = self._retries if method == "GET" else 0
        while True:
            try:
                status, data = self._once(method, target, body)
            except (OSError, http.client.HTTPException) as error:
                if not left:
                    why = type(error).__name__
                    where = f"{self._host}:{self._port}"
                    raise StoreUnavailable(f"the registry at {where} does not answer: {why}") from error
            else:
                if status < 300:
                    return data
                if status not in _AGAIN or not left:
                    raise _error(status, data)
            left -= 1
            time.sleep(0.1 * 2 ** (self._retries - left) * random.uniform(0.5, 1.5))

    def _once(self, method: str, target: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        connection: http.client.HTTPConnection
        if self._secure:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, target, data, headers)
            response = connection.getresponse()
            read = response.read(_MOST_BYTES + 1)
            if len(read) > _MOST_BYTES:
                raise BadInput(f"{target}: the answer is longer than {_MOST_BYTES} bytes")
            return response.status, read
        finally:
            connection.close()


def _error(status: int, data: bytes) -> PlatformError:
    """The error that an answer tells, as the class it is here."""
    try:
        told = json.loads(data)["error"]
        code, message = str(told["code"]), str(told["message"])
    except (ValueError, KeyError, TypeError):
        return StoreUnavailable(f"the registry answered {status} without saying why")
    made = _BY_CODE.get(code, PlatformError)(message)
    if type(made) is PlatformError:
        made.code = code
    return made


def _subclasses(root: type[PlatformError]) -> Iterator[type[PlatformError]]:
    yield root
    for child in root.__subclasses__():
        yield from _subclasses(child)


_BY_CODE = {one.code: one for one in _subclasses(PlatformError) if one.__module__ == errors.__name__}


def _part(text: str) -> str:
    if not text or text in (".", ".."):
        raise BadInput(f"{text!r} is no name or reference")
    return quote(text, safe="@:")


def _name(ref: str) -> str:
    return ref.partition("@")[0].partition(":")[0]


def _alias(name: str, alias: str) -> str:
    return f"/aliases/{_part(name)}/{_part(alias)}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
