"""TLS towards upstreams."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import UpstreamUnreachable


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Whom to trust, and who to be. Certificates and host names are always checked."""

    ca_file: Path | None = None
    """PEM file of the only authorities to trust; None means those of the system."""
    certificate: Path | None = None
    """PEM file with the client's certificate and its chain, for upstreams that ask for one."""
    key: Path | None = None
    """PEM file of that certificate's private key; None where `certificate` holds it too."""


def context_of(options: TlsOptions) -> ssl.SSLContext:
    """
    A context for connections that speak HTTP/1.1, TLS 1.2 or newer. Costs milliseconds: keep it.

    Raises:
        UpstreamUnreachable: a file cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key)
    except OSError as error:
        message = "the gateway's CA file, certificate or key for this model cannot be read"
        raise UpstreamUnreachable(message) from error
    return context
