"""
Errors of the gateway, and the only map from error codes to HTTP.

    PlatformError
    └── GatewayError
        ├── MissingKey, InvalidKey, KeyNotAllowed
        ├── RateLimited               a limit on requests, tokens or concurrency
        │   └── BudgetExhausted       the money of a period is spent
        ├── PriceUnknown              a budget is to be kept and nobody knows what the model costs
        ├── InvalidRequest
        │   ├── BodyTooLarge, BodyTimeout
        │   └── GuardrailBlocked      a policy refused the text
        │   ├── UnsafeField           a field that would choose where the gateway connects to
        │   ├── UnsupportedMedia      a body of a kind that this path does not read
        │   └── IdempotencyConflict   an Idempotency-Key was used for something else
        ├── UnknownModel, UnknownPath, WrongMethod
        ├── UnknownGeneration         no request of that id of this account is on record
        ├── RecordsUnavailable        what was used cannot be looked up or added to now
        ├── RegistryDecides           what is served is not decided here
        ├── NotReady                  the release is still loading, or cannot be served
        ├── Overloaded                this gateway has no room for another request
        ├── LimitsUnavailable         the store that counts cannot be reached, and policy says closed
        ├── LedgerFull                usage can neither be stored nor kept, so none may be made
        ├── Stopping                  the grace period of a stop ended before the answer
        ├── InternalError             a fault of the gateway itself
        └── UpstreamError
            ├── UpstreamUnreachable   no connection could be made
            ├── UpstreamTimeout       a deadline passed
            ├── UpstreamBroken        the answer was cut or is not HTTP
            ├── UpstreamTooLarge      the answer passed the size bound
            ├── CircuitOpen           it failed so often that it is left alone for a while
            └── UpstreamRefused       the upstream answered with an error of its own
"""

from __future__ import annotations

import msgspec

from registry.errors import PlatformError


class GatewayError(PlatformError):
    """The gateway could not answer."""

    code = "gateway_error"

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        """*param* names the offending field of the request, as OpenAI's errors do."""
        super().__init__(message)
        self.param = param


class MissingKey(GatewayError):
    """No API key was given. Send it as `Authorization: Bearer sk-sg-…`."""

    code = "missing_api_key"


class InvalidKey(GatewayError):
    """The API key is unknown, expired or revoked. Make one with `gateway keys create`."""

    code = "invalid_api_key"


class KeyNotAllowed(GatewayError):
    """This API key may not call that model."""

    code = "model_not_allowed"


class RateLimited(GatewayError):
    """A rate limit was reached. Wait as long as `Retry-After` says."""

    code = "rate_limit_exceeded"

    def __init__(
        self, message: str | None = None, *, headers: tuple[tuple[bytes, bytes], ...] = (), rule: str = ""
    ) -> None:
        """*headers* are `retry-after` and `x-ratelimit-*`; *rule* is the limit, such as `key.rpm`."""
        super().__init__(message)
        self.headers = headers
        self.rule = rule


class BudgetExhausted(RateLimited):
    """This budget is spent. Raise it, or wait for the next period."""

    code = "insufficient_quota"


class PriceUnknown(GatewayError):
    """A budget applies and this model has no price. Set one with `gateway prices set`."""

    code = "price_unknown"


class InvalidRequest(GatewayError):
    """The request body is not valid."""

    code = "invalid_request"


class ParseFailed(InvalidRequest):
    """The body is not JSON."""

    code = "parse_error"


class NotAMessage(InvalidRequest):
    """The body is JSON and no message of JSON-RPC 2.0."""

    code = "not_a_message"


class UnknownMethod(InvalidRequest):
    """There is no such method at `/mcp`."""

    code = "unknown_method"


class BodyTooLarge(InvalidRequest):
    """The request body is larger than this gateway accepts."""

    code = "request_too_large"


class BodyTimeout(InvalidRequest):
    """The request body took too long to arrive."""

    code = "request_timeout"


class UnsupportedMedia(InvalidRequest):
    """This path does not read bodies of that kind. Send the one it names."""

    code = "unsupported_media_type"


class UnsafeField(InvalidRequest):
    """The body names a field that chooses where or as whom the gateway calls. Leave it out."""

    code = "unsafe_field"


class IdempotencyConflict(InvalidRequest):
    """This Idempotency-Key was used for another request. Use a new one."""

    code = "idempotency_conflict"


class GuardrailBlocked(InvalidRequest):
    """A guardrail of this release refused the request."""

    code = "guardrail_blocked"

    def __init__(self, message: str | None = None, *, param: str | None = None, rule: str = "") -> None:
        """*rule* is what was found, such as `email`; metrics count it."""
        super().__init__(message, param=param)
        self.rule = rule


class UnknownModel(GatewayError):
    """No release or model has that name."""

    code = "model_not_found"


class RegistryDecides(GatewayError):
    """What is served is what the registry's aliases name. Move or roll back an alias instead."""

    code = "registry_decides"


class UnknownResponse(GatewayError):
    """No response of that id is kept."""

    code = "previous_response_not_found"


class UnknownGeneration(GatewayError):
    """No request of that id of this account is on record."""

    code = "generation_not_found"

    def __init__(self, message: str | None = None, *, recent: bool = False) -> None:
        """*recent*: so young an id that its record may be under way, which `Retry-After` says."""
        super().__init__(message)
        self.recent = recent


class RecordsUnavailable(GatewayError):
    """The registry cannot be reached, and with it what is on record of requests. Try again."""

    code = "records_unavailable"


class UnknownPath(GatewayError):
    """There is nothing at that path."""

    code = "unknown_url"


class WrongMethod(GatewayError):
    """That path does not answer this method."""

    code = "method_not_allowed"


class NotReady(GatewayError):
    """The release cannot be served yet. Try again in a moment."""

    code = "release_not_ready"


class Overloaded(GatewayError):
    """The gateway is busy. Try again in a moment."""

    code = "overloaded"


class LimitsUnavailable(GatewayError):
    """Limits cannot be counted now, and this gateway was told not to serve without. Try again."""

    code = "limits_unavailable"


class LedgerFull(GatewayError):
    """Usage cannot be stored, so nothing that costs may be called. Free space on the gateway's disk."""

    code = "ledger_full"


class Stopping(GatewayError):
    """The gateway is being stopped and could not wait for this answer. Ask again."""

    code = "gateway_stopping"


class InternalError(GatewayError):
    """The gateway failed. Its log has the cause under this answer's x-request-id."""

    code = "internal_error"


class UpstreamError(GatewayError):
    """The model behind the gateway failed."""

    code = "upstream_error"


class UpstreamUnreachable(UpstreamError):
    """No connection to the model could be made."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """The model did not answer in time."""

    code = "upstream_timeout"


class UpstreamBroken(UpstreamError):
    """The model broke off its answer."""

    code = "upstream_broken"


class UpstreamTooLarge(UpstreamError):
    """The model's answer is larger than this gateway accepts."""

    code = "upstream_too_large"


class CircuitOpen(UpstreamError):
    """The model failed so often that it is left alone for a while. Try again later."""

    code = "circuit_open"

    def __init__(self, message: str | None = None, *, retry_after_s: int = 1) -> None:
        """*retry_after_s* is when it will be tried again."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UpstreamRefused(UpstreamError):
    """The model behind the gateway refused the request."""

    def __init__(
        self, message: str, *, status: int, kind: str, code: str, param: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (), upstream_status: int | None = None,
    ) -> None:  # fmt: skip
        """
        What a client needs to react: *status*, OpenAI's *kind* and *code*, retry hints in *headers*;
        *upstream_status* is the upstream's own, where the client is told another.
        """
        super().__init__(message, param=param)
        self.status = status
        self.upstream_status = status if upstream_status is None else upstream_status
        self.kind = kind
        self.code = code
        self.headers = headers


STATUS: dict[str, tuple[int, str]] = {
    "missing_api_key": (401, "authentication_error"),
    "invalid_api_key": (401, "authentication_error"),
    "model_not_allowed": (403, "permission_error"),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "insufficient_quota": (429, "insufficient_quota"),
    "price_unknown": (403, "permission_error"),
    "invalid_request": (400, "invalid_request_error"),
    "parse_error": (400, "invalid_request_error"),
    "not_a_message": (400, "invalid_request_error"),
    "unknown_method": (404, "invalid_request_error"),
    "unsafe_field": (400, "invalid_request_error"),
    "idempotency_conflict": (422, "invalid_request_error"),
    "bad_input": (400, "invalid_request_error"),
    "bad_template": (500, "server_error"),
    "request_too_large": (413, "invalid_request_error"),
    "unsupported_media_type": (415, "invalid_request_error"),
    "registry_decides": (409, "invalid_request_error"),
    "guardrail_blocked": (400, "invalid_request_error"),
    "model_not_found": (404, "invalid_request_error"),
    "unknown_url": (404, "invalid_request_error"),
    "previous_response_not_found": (404, "invalid_request_error"),
    "generation_not_found": (404, "invalid_request_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "request_timeout": (408, "invalid_request_error"),
    "bad_features": (400, "invalid_request_error"),
    "release_not_ready": (503, "server_error"),
    "overloaded": (503, "server_error"),
    "limits_unavailable": (503, "server_error"),
    "records_unavailable": (503, "server_error"),
    "ledger_full": (503, "server_error"),
    "circuit_open": (503, "server_error"),
    "engine_failed": (503, "server_error"),
    "engine_not_ready": (503, "server_error"),
    "engine_metrics_unreadable": (502, "server_error"),
    "upstream_error": (502, "server_error"),
    "upstream_unreachable": (502, "server_error"),
    "upstream_broken": (502, "server_error"),
    "upstream_too_large": (502, "server_error"),
    "upstream_timeout": (504, "server_error"),
    "gateway_stopping": (503, "server_error"),
    "internal_error": (500, "server_error"),
    "missing_extra": (503, "server_error"),
    "secret_unavailable": (503, "server_error"),
    "issuer_unavailable": (503, "server_error"),
    "bad_settings": (503, "server_error"),
    "store_unavailable": (503, "server_error"),
    "version_tampered": (503, "server_error"),
    "index_not_built": (503, "server_error"),
    "index_broken": (503, "server_error"),
    "embedder_mismatch": (503, "server_error"),
    "weights_unavailable": (503, "server_error"),
    "retriever_closed": (503, "server_error"),
    "model_unusable": (503, "server_error"),
    "not_found": (404, "invalid_request_error"),
    "bad_ref": (400, "invalid_request_error"),
    "conflict": (409, "invalid_request_error"),
    "unauthorized": (401, "authentication_error"),
    "forbidden": (403, "permission_error"),
    "audit_tampered": (503, "server_error"),
    "promotion_refused": (409, "promotion_refused"),
    "evidence_missing": (409, "promotion_refused"),
    "evidence_mismatch": (409, "promotion_refused"),
    "evidence_tampered": (409, "promotion_refused"),
    "evidence_untrusted": (409, "promotion_refused"),
    "evidence_expired": (409, "promotion_refused"),
    "evidence_replayed": (409, "promotion_refused"),
    "evidence_superseded": (409, "promotion_refused"),
    "gate_not_passed": (409, "promotion_refused"),
    "approval_missing": (409, "promotion_refused"),
    "record_tampered": (409, "promotion_refused"),
    "alias_moved": (409, "promotion_refused"),
    "nothing_to_roll_back": (409, "promotion_refused"),
}
"""Error code → (HTTP status, OpenAI error type). Codes not listed are 500 server_error."""


def status_of(error: PlatformError) -> int:
    """The HTTP status of *error*."""
    if isinstance(error, UpstreamRefused):
        return error.status
    return STATUS.get(error.code, (500, "server_error"))[0]


def body_of(error: PlatformError) -> bytes:
    """The error as OpenAI writes it: `{"error": {message, type, param, code}}`."""
    kind = STATUS.get(error.code, (500, "server_error"))[1]
    if isinstance(error, UpstreamRefused):
        kind = error.kind
    param = getattr(error, "param", None)
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": kind, "param": param, "code": error.code}}
    )
