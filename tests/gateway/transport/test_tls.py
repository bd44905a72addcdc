"""TLS towards upstreams: trusted or refused, and an end that was not said is a cut."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.errors import UpstreamBroken, UpstreamError, UpstreamUnreachable
from gateway.transport import TlsOptions, Transport
from registry.clock import utc_now
from tests.gateway.transport.upstream import (
    OK,
    Limits,
    Peer,
    Run,
    always,
    client,
    fetch,
    loops,
    now,
    until,
    upstream,
)

LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@dataclass(frozen=True)
class Paper:
    certificate: Path
    key: Path


def self_signed(folder: Path, name: str, alternative: x509.GeneralName) -> Paper:
    """A certificate that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now_utc = utc_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now_utc - dt.timedelta(days=1))
        .not_valid_after(now_utc + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paper = Paper(folder / f"{name}.pem", folder / f"{name}.key")
    paper.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paper.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paper


@dataclass(frozen=True)
class Papers:
    right: Paper
    wrong_name: Paper
    caller: Paper


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    return Papers(
        self_signed(folder, "right", LOOPBACK),
        self_signed(folder, "wrong", x509.DNSName("other.example")),
        self_signed(folder, "caller", x509.DNSName("caller.example")),
    )


def server_side(paper: Paper, *, callers: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paper.certificate, paper.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if callers is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(callers)
    return context


@loops
def test_a_trusted_upstream_is_asked_over_one_connection_that_speaks_http_1(run: Run, papers: Papers) -> None:
    async def main() -> None:
        big = b"x" * 1_000_000
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(big) + big
        tls = TlsOptions(ca_file=papers.right.certificate)
        async with (
            upstream(always(answer), ssl=server_side(papers.right)) as server,
            client(tls=tls) as transport,
        ):
            for _ in range(3):
                assert await fetch(transport, server.url, b"y" * 500_000) == big
            assert server.connections == 1
            spoken = server.peers[0].writer.get_extra_info("ssl_object")
            assert spoken.selected_alpn_protocol() == "http/1.1"

    run(main())


@loops
def test_an_unknown_authority_a_wrong_name_and_no_tls_at_all_are_unreachable(
    run: Run, papers: Papers
) -> None:
    async def main() -> None:
        for tls, paper in (
            (TlsOptions(), papers.right),
            (TlsOptions(ca_file=papers.caller.certificate), papers.right),
            (TlsOptions(ca_file=papers.wrong_name.certificate), papers.wrong_name),
        ):
            async with upstream(always(OK), ssl=server_side(paper)) as server, client(tls=tls) as transport:
                with pytest.raises(UpstreamUnreachable):
                    await fetch(transport, server.url)
                assert now(transport.stats()) == (0, 0, 0)

        async def plain(peer: Peer) -> None:
            await peer.reader.read(1)
            await peer.send(OK)

        async with upstream(plain) as server, client() as transport:
            with pytest.raises(UpstreamUnreachable):
                await fetch(transport, server.url.replace("http:", "https:"))

    run(main())


@loops
def test_a_client_certificate_is_shown_to_an_upstream_that_asks_for_one(run: Run, papers: Papers) -> None:
    async def main() -> None:
        context = server_side(papers.right, callers=papers.caller.certificate)
        known = TlsOptions(papers.right.certificate, papers.caller.certificate, papers.caller.key)
        unknown = TlsOptions(papers.right.certificate)
        async with upstream(always(OK), ssl=context) as server:
            async with client(tls=known) as transport:
                assert await fetch(transport, server.url) == b"ok"
            async with client(tls=unknown) as transport:
                with pytest.raises(UpstreamError):
                    await fetch(transport, server.url)

    run(main())


@pytest.mark.parametrize(
    "options", [TlsOptions(ca_file=Path("/nowhere")), TlsOptions(certificate=Path("/nowhere"))]
)
def test_papers_that_cannot_be_read_are_named_as_the_problem(options: TlsOptions) -> None:
    async def main() -> None:
        transport = Transport(Limits(), tls=options)
        with pytest.raises(UpstreamUnreachable, match="CA file, certificate or key"):
            await fetch(transport, "https://127.0.0.1:1/")
        await transport.close()

    asyncio.run(main())


@loops
@pytest.mark.parametrize("polite", [True, False])
def test_a_body_until_the_end_must_be_ended_by_tls_not_by_whoever_can_cut_a_wire(
    run: Run, papers: Papers, polite: bool
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n", b"all")
        if polite:
            return
        await peer.reader.read(1)

    async def main() -> None:
        tls = TlsOptions(ca_file=papers.right.certificate)
        async with upstream(handle, ssl=server_side(papers.right)) as server, client(tls=tls) as transport:
            reply = await transport.request("POST", server.url, (), b"{}")
            chunks = reply.chunks()
            assert await anext(chunks) == b"all"
            if polite:
                assert [chunk async for chunk in chunks] == []
                return
            server.peers[0].writer.transport.abort()  # FIN, without a word of TLS
            with pytest.raises(UpstreamBroken):
                await anext(chunks)

    run(main())


@loops
def test_an_upstream_that_closed_its_idle_connection_is_asked_on_another(run: Run, papers: Papers) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async def main() -> None:
        tls = TlsOptions(ca_file=papers.right.certificate)
        async with upstream(handle, ssl=server_side(papers.right)) as server, client(tls=tls) as transport:
            for _ in range(4):
                assert await fetch(transport, server.url) == b"ok"
            await until(lambda: transport.stats().open == 0)

    run(main())
