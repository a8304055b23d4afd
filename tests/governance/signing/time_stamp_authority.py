"""A time-stamp authority of its own (RFC 3161) on 127.0.0.1, for tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from asn1crypto import tsp
from asn1crypto import x509 as asn1_x509
from asn1crypto.keys import PrivateKeyInfo
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pyhanko.sign.timestamps import DummyTimeStamper
from pyhanko_certvalidator.registry import SimpleCertificateStore


@dataclass(frozen=True)
class LocalAuthority:
    """Answers questions, and has the certificate that vouches for its answers."""

    root_pem: bytes
    stamper: DummyTimeStamper

    def answer(self, question: bytes) -> bytes:
        """A granted answer to one question, DER."""
        return bytes(self.stamper.request_tsa_response(tsp.TimeStampReq.load(question)).dump())

    def certificate(self, folder: Path, name: str = "authority.pem") -> Path:
        """Write the root certificate; return the file."""
        path = folder / name
        path.write_bytes(self.root_pem)
        return path


@cache
def local_authority(name: str = "authority") -> LocalAuthority:
    """An authority with a root of its own; one a name and test process."""
    root_key, key = generate_private_key(65537, 2048), generate_private_key(65537, 2048)
    root = _certificate(f"{name} root", root_key, f"{name} root", root_key, is_root=True)
    leaf = _certificate(name, key, f"{name} root", root_key, is_root=False)
    store = SimpleCertificateStore()  # type: ignore[no-untyped-call]
    store.register(_asn1(root))
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    stamper = DummyTimeStamper(_asn1(leaf), PrivateKeyInfo.load(plain), certs_to_embed=store)
    return LocalAuthority(root.public_bytes(Encoding.PEM), stamper)


def _certificate(
    name: str, key: RSAPrivateKey, issuer: str, issuer_key: RSAPrivateKey, *, is_root: bool
) -> x509.Certificate:
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
    )
    if not is_root:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        made = made.add_extension(usage, critical=True)
    return made.sign(issuer_key, SHA256())


def _asn1(certificate: x509.Certificate) -> asn1_x509.Certificate:
    return asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))


class Server(ThreadingHTTPServer):
    """Answers as `authority` does, or as `fault` says."""

    def __init__(self, authority: LocalAuthority) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.authority, self.fault = authority, ""
        self.asked: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/tsa"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:  # a client that followed a redirect would come here
        self.server.asked.append(("GET", self.path))
        self._send(200, b"a file")

    def do_POST(self) -> None:
        question = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(("POST", str(self.headers["Content-Type"])))
        fault = self.server.fault
        if fault.startswith("status "):
            return self._send(int(fault.split()[1]), b"no", {"Location": "file:///etc/passwd"})
        if fault.startswith("to "):
            return self._send(302, b"", {"Location": fault.removeprefix("to ")})
        if fault == "long":
            return self._send(200, bytes(1 << 20))
        if fault == "text":
            return self._send(200, b"<html>come in</html>")
        if fault == "other question":
            question = replaced_nonce(question)
        return self._send(200, self.server.authority.answer(question))

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def replaced_nonce(question: bytes) -> bytes:
    """The same question as somebody else would have asked it."""
    request = tsp.TimeStampReq.load(question)
    request["nonce"] = 7
    return bytes(request.dump(force=True))


@contextmanager
def served(authority: LocalAuthority) -> Iterator[Server]:
    """The authority behind HTTP on 127.0.0.1."""
    server = Server(authority)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
