"""Downloads one file over TLS: resumable, and never more bytes than published."""

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import FileIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import requests

from governance.records.errors import DataError, ResourceError, first_line

TIMEOUT_S = (10.0, 30.0)  # to connect, and between two pieces of an answer
MAX_ATTEMPTS = 6  # in a row without one new byte
MAX_REDIRECTS = 5
MAX_WAIT_S = 60.0
_BLOCK_BYTES = 1 << 16  # a broken connection loses less than one
_REPORT_EVERY_S = 0.2
_RATE_OVER_S = 10.0
_MAX_RECORD_BYTES = 5_000_000
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_AGENT = "medisynth-gov (https://pypi.org/project/medisynth-gov)"


@dataclass(frozen=True)
class RemoteFile:
    """A published file to download.

    Attributes:
        name: Plain file name.
        address: Web address.
        n_bytes: Size; None when only the publisher's record gives it.
        md5: MD5 as published, 32 hex digits; None when only the record gives it.
    """

    name: str
    address: str
    n_bytes: int | None = None
    md5: str | None = None


@dataclass(frozen=True)
class Transfer:
    """Progress of a download.

    Attributes:
        file: Name of the file.
        done_bytes: Bytes on disk, those of earlier attempts included.
        total_bytes: Size of the file.
        bytes_per_s: Rate over the last seconds; 0 before anything came.
        seconds_left: At that rate; None while the rate is unknown.
    """

    file: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: float
    seconds_left: float | None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", {_duration(self.seconds_left)} left"
        return (
            f"{self.file}: {self.done_bytes / 1e6:,.1f} of {self.total_bytes / 1e6:,.1f} MB, "
            f"{self.bytes_per_s / 1e6:.1f} MB/s{left}"
        )


Say = Callable[[str], None]
Report = Callable[[Transfer], None]
CheckStop = Callable[[], None]


class _BrokenError(Exception):
    """The connection ended too early or the server is busy; another attempt may help."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass
class Downloader:
    """Fetches files one after another.

    Attributes:
        say: Called with one short sentence at each stage.
        progress: Called several times a second; may raise to stop.
        check_stop: Called between pieces and while waiting; may raise to stop.
        back_off_s: First wait after a failure; doubled after each further one.
    """

    say: Say
    progress: Report
    check_stop: CheckStop
    back_off_s: float = 1.0
    _session: requests.Session = field(default_factory=requests.Session)

    def fetch(self, file: RemoteFile, part: Path) -> None:
        """Download into `part`, which may hold a beginning; its content is not checked here.

        Raises:
            ResourceError: The address cannot be reached, answers with an error or leads elsewhere,
                or the disk cannot be written. What came so far stays in `part`.
            DataError: D096, the server offers another size than published.
        """
        if file.n_bytes is None:
            raise ValueError(f"{file.name}: size unknown")
        failures = 0
        meter = _Meter(file.name, file.n_bytes, self.progress)
        while _size(part) != file.n_bytes:
            before = _size(part)
            try:
                self._attempt(file, file.n_bytes, part, meter)
            except _BrokenError as broken:
                failures = 1 if _size(part) > before else failures + 1
                if failures >= MAX_ATTEMPTS:
                    raise ResourceError(
                        f"{file.address}: {broken}, {failures} times in a row; what came is kept "
                        "and the same command goes on from there"
                    ) from broken
                wait_s = min(self.back_off_s * 2 ** (failures - 1), MAX_WAIT_S)
                wait_s = min(max(wait_s, broken.wait_s or 0.0), MAX_WAIT_S)
                self.say(f"{file.name}: {broken}; asking again in {wait_s:.0f} s")
                self._wait(wait_s)
        meter.report(file.n_bytes, last=True)

    def read_json(self, address: str) -> Any:
        """Read one small JSON answer.

        Raises:
            ResourceError: It cannot be read.
        """
        for attempt in range(MAX_ATTEMPTS):
            try:
                with self._ask(address, {"Accept": "application/json"}) as reply:
                    return json.loads(_read_small(address, reply))
            except (_BrokenError, requests.RequestException) as error:
                if attempt + 1 == MAX_ATTEMPTS:
                    raise ResourceError(
                        f"{address}: {innermost_reason(error)}; try again later"
                    ) from error
                self._wait(min(self.back_off_s * 2**attempt, MAX_WAIT_S))
            except ValueError as error:
                raise ResourceError(f"{address}: answer is no JSON; try again later") from error
        raise ResourceError(f"{address}: no answer")

    def _attempt(self, file: RemoteFile, n_bytes: int, part: Path, meter: "_Meter") -> None:
        start = _size(part)
        if start > n_bytes:
            part.unlink()
            start = 0
        mark = part.with_name(part.name + ".etag")
        headers = _range_headers(start, mark)
        with self._ask(file.address, headers) as reply:
            resumed = reply.status_code == requests.codes.partial
            if reply.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink(missing_ok=True)
                raise _BrokenError("the server cannot go on from there, starting again")
            _check_size(file, reply, start if resumed else 0, n_bytes)
            tag = reply.headers.get("ETag", "")
            with _on_disk(mark):
                mark.write_text(tag if tag.startswith('"') else "")
            if start:
                self.say(
                    f"{file.name}: going on from {start / 1e6:,.1f} MB"
                    if resumed
                    else f"{file.name}: the server gives the whole file only, starting again"
                )
            with _open(part, "ab" if resumed else "wb") as out:
                self._receive(reply, part, out, meter)
        if _size(part) < n_bytes:
            raise _BrokenError("connection ended too early")

    def _receive(self, reply: requests.Response, part: Path, out: FileIO, meter: "_Meter") -> None:
        blocks = reply.iter_content(_BLOCK_BYTES)
        while True:
            self.check_stop()
            try:
                block = next(blocks, b"")
            except requests.RequestException as error:
                raise _BrokenError(innermost_reason(error)) from error
            if not block:
                return
            if out.tell() + len(block) > meter.total_bytes:
                out.truncate(0)
                raise DataError(
                    f"{meter.file}: more than the published {meter.total_bytes} bytes came; it is "
                    "not the published file, nothing is kept",
                    code="D096",
                )
            with _on_disk(part):
                _write_all(out, block)
            meter.report(out.tell(), received=len(block))

    def _ask(self, address: str, headers: dict[str, str]) -> requests.Response:
        """Send one request and follow redirects on the same host only."""
        origin = urlsplit(address).hostname
        for _ in range(MAX_REDIRECTS + 1):
            check_address(address)
            try:
                reply = self._session.get(
                    address,
                    headers={"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers},
                    stream=True,
                    timeout=TIMEOUT_S,
                    allow_redirects=False,
                )
            except requests.exceptions.SSLError as error:
                raise ResourceError(
                    f"{address}: certificate not accepted ({innermost_reason(error)})"
                ) from error
            except requests.RequestException as error:
                raise _BrokenError(f"cannot be reached ({innermost_reason(error)})") from error
            target = reply.headers.get("Location")
            if not (reply.is_redirect and target):
                _check_status(address, reply)
                return reply
            reply.close()
            address = urljoin(address, target)
            if urlsplit(address).hostname != origin:
                raise ResourceError(
                    f"{origin} sends on to another host, {urlsplit(address).hostname}; refused, "
                    "fetch the file by hand if you trust it"
                )
        raise ResourceError(f"{address}: more than {MAX_REDIRECTS} redirects")

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check_stop()
            time.sleep(min(left, 0.2))


class _Meter:
    """Measures the rate over the last seconds and reports it a few times a second."""

    def __init__(self, file: str, total_bytes: int, progress: Report) -> None:
        self.file, self.total_bytes, self.progress = file, total_bytes, progress
        self._points: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._received, self._reported = 0, 0.0

    def report(self, done_bytes: int, *, received: int = 0, last: bool = False) -> None:
        now = time.monotonic()
        self._received += received
        if not last and now - self._reported < _REPORT_EVERY_S:
            return
        self._reported = now
        self._points.append((now, self._received))
        while len(self._points) > 2 and now - self._points[0][0] > _RATE_OVER_S:
            self._points.popleft()
        then, received_then = self._points[0]
        rate = (self._received - received_then) / (now - then) if now > then else 0.0
        left = (self.total_bytes - done_bytes) / rate if rate > 0 else None
        self.progress(Transfer(self.file, done_bytes, self.total_bytes, rate, left))


def check_address(address: str) -> None:
    """Refuse an address that is neither https nor on this machine.

    Raises:
        ResourceError: The address is neither.
    """
    parts = urlsplit(address)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return
    raise ResourceError(f"{address}: not over TLS; expected an https address, refused")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_status(address: str, reply: requests.Response) -> None:
    status = reply.status_code
    if status in (200, 206, 416):
        return
    wait = reply.headers.get("Retry-After", "")
    reply.close()
    if status in _PASSING:
        raise _BrokenError(
            f"server answers {status} {reply.reason}", float(wait) if wait.isdecimal() else None
        )
    raise ResourceError(
        f"{address}: server answers {status} {reply.reason}; see whether the record has moved"
    )


def _check_size(file: RemoteFile, reply: requests.Response, start: int, n_bytes: int) -> None:
    """Raise DataError D096 if the server offers another size than published."""
    if reply.status_code == requests.codes.partial:
        given = reply.headers.get("Content-Range", "")
        if given not in (
            f"bytes {start}-{n_bytes - 1}/{n_bytes}",
            f"bytes {start}-{n_bytes - 1}/*",
        ):
            raise _wrong_size(file, n_bytes, f"the part {given!a}")
        return
    length = reply.headers.get("Content-Length")
    if length is not None and length != str(n_bytes):
        raise _wrong_size(file, n_bytes, f"{length[:20]!a} bytes")


def _wrong_size(file: RemoteFile, n_bytes: int, found: str) -> DataError:
    return DataError(
        f"{file.name}: server offers {found}, expected {n_bytes} bytes as published; it is not the "
        "published file",
        code="D096",
    )


def _read_small(address: str, reply: requests.Response) -> bytes:
    text = b""
    for block in reply.iter_content(_BLOCK_BYTES):
        text += block
        if len(text) > _MAX_RECORD_BYTES:
            raise ResourceError(f"{address}: answer of more than {_MAX_RECORD_BYTES} bytes")
    return text


def _range_headers(start: int, mark: Path) -> dict[str, str]:
    if not start:
        return {}
    headers = {"Range": f"bytes={start}-"}
    tag = mark.read_text() if mark.is_file() else ""
    # Even without a strong tag the checksum of the whole file is compared at the end.
    return headers | ({"If-Range": tag} if tag else {})


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _open(path: Path, mode: Literal["ab", "wb"]) -> FileIO:
    with _on_disk(path):
        return path.open(mode, buffering=0)  # unbuffered: received bytes survive a crash


@contextlib.contextmanager
def _on_disk(path: Path) -> Iterator[None]:
    """Turn an OSError at `path` into a ResourceError."""
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{path}: {error.strerror or error}; what came is kept, make room or mend the "
            "permission and give the same command again"
        ) from error


def _write_all(out: FileIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[out.write(view) :]


def innermost_reason(error: BaseException) -> str:
    """Return the innermost cause as one short line; requests wraps urllib3's and OS errors."""
    seen: BaseException = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    text = (isinstance(seen, OSError) and seen.strerror) or str(seen) or type(seen).__name__
    return first_line(text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
