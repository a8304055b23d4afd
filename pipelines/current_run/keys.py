"""Signing keys of a run, and time-stamps of its manifest from a configured authority.

An authority that cannot be reached, or gives no usable answer, never fails a run: there is a
warning, and `medisynth-gov timestamp RUN` asks again later for the unchanged manifest.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs

from governance.evidence.folder import RunFolder
from governance.evidence.manifest import MANIFEST, TOKEN
from governance.records.errors import (
    ConfigError,
    MedisynthGovError,
    SigningKeyError,
    TimeStampError,
)
from governance.records.files import typed
from governance.signing.keys import KeyPair, RunSigner, load_signer, make_key_pair
from governance.signing.timestamp import (
    LARGEST_TOKEN_BYTES,
    Authority,
    accept_answer,
    make_request,
    read_authority,
    write_token,
)
from pipelines.config.sections import SigningConfig, authority_address
from pipelines.current_run.places import refuse_in_data
from pipelines.fetch.cache import users_folder
from pipelines.fetch.download import innermost_reason


def open_signer(config: SigningConfig) -> RunSigner | None:
    """Load the configured signing key; None when no key is configured.

    Raises:
        SigningKeyError: The key cannot be used.
        AnchorError: The time-stamp authority's certificate cannot be read.
    """
    open_authority(config)
    if config.key is None:
        return None
    return load_signer(
        config.key,
        identity=config.identity,
        public_key=Path(config.public_key) if config.public_key else None,
        certificate=Path(config.certificate) if config.certificate else None,
    )


def open_authority(config: SigningConfig) -> Authority | None:
    """Read the time-stamp authority's certificate; None when none is configured.

    Raises:
        AnchorError: The file holds no certificate.
    """
    path = config.timestamp_certificate
    return None if path is None else read_authority(Path(path))


def make_keys(folder: Path | None) -> tuple[KeyPair, str]:
    """Make a key pair; return it and a text on how to use it.

    Args:
        folder: Where to write it; None takes the user's configuration folder.

    Raises:
        ConfigError: The folder lies in a data folder.
        SigningKeyError: There is a key already, or the user has no home folder.
        RecordWriteError: The folder cannot be written.
    """
    place = folder or users_folder(platformdirs.user_config_path)
    if place is None:
        raise SigningKeyError("this user has no home folder; name a folder for the key with --out")
    place = place.expanduser().resolve()
    refuse_in_data("--out", place)
    pair = make_key_pair(place)
    words = (
        f"key id       {pair.key_id}\n"
        f"private key  {pair.private_key} (readable by you alone; keep a copy offline)\n"
        f"public key   {pair.public_key} (give it to who verifies: verify RUN --key FILE)\n"
        f"certificate  {pair.certificate} (self-signed, for the signed copy of the PDF)\n"
        "identity     not vouched for: the key was made on this machine\n"
        "to sign runs, put this into the configuration file:\n"
        f"signing:\n  key: {pair.private_key}\n  identity: your name or organisation"
    )
    return pair, words


TIMEOUT_S = (5.0, 15.0)  # to connect, and between two pieces of an answer
_DEADLINE_S = 30.0  # for the whole answer, however slowly it drips
_QUERY, _REPLY = "application/timestamp-query", "application/timestamp-reply"


def stamp_at_end(run_dir: Path, config: SigningConfig, warn: Callable[[str], None]) -> None:
    """Get the configured time-stamp of a finished run; warn if that fails."""
    if config.timestamp_url is None:
        return
    try:
        _stamp(run_dir, config.timestamp_url, open_authority(config))
    except MedisynthGovError as error:
        warn(f"no time-stamp: {error}; later: medisynth-gov timestamp {typed(run_dir)}")


def stamp_later(run_dir: Path, url: str | None, certificate: Path | None) -> str:
    """Get a time-stamp of a finished run; return the authority's address.

    Args:
        run_dir: The run folder.
        url: Authority; None takes the run's own.
        certificate: Its certificate; None takes the run's own, if any.

    Raises:
        ConfigError: No authority is named, or the run has a time-stamp already or is not finished.
        EvidenceError: The manifest is damaged.
        TimeStampError: The authority gave no usable answer.
    """
    run = RunFolder.finished(run_dir)
    if (run_dir / TOKEN).exists():
        raise ConfigError(f"{run_dir / TOKEN}: is there already; verify shows what it says")
    signing = run.config().get("signing") or {}
    address = url or signing.get("timestamp_url")
    if address is None:
        raise ConfigError(
            f"{run_dir.name}: its configuration names no time-stamp authority; give --url"
        )
    try:
        authority_address(str(address))
    except ValueError as error:
        raise ConfigError(f"--url: {str(address)[:80]!a}: {error}") from error
    path = certificate or signing.get("timestamp_certificate")
    _stamp(run_dir, str(address), None if path is None else read_authority(Path(path)))
    return str(address)


def _stamp(run_dir: Path, url: str, authority: Authority | None) -> None:
    manifest = (run_dir / MANIFEST).read_bytes()
    request = make_request(manifest)
    answer = _ask(url, request.as_bytes())
    try:
        accept_answer(answer, request, manifest, authority)
    except TimeStampError as error:
        raise TimeStampError(f"{url}: {error}") from error
    write_token(run_dir, answer)


def _ask(url: str, question: bytes) -> bytes:
    """Post the request and return the answer, limited in size and time."""
    import requests

    try:
        with requests.post(
            url,
            data=question,
            headers={"Content-Type": _QUERY, "Accept": _REPLY, "Accept-Encoding": "identity"},
            timeout=TIMEOUT_S,
            stream=True,
            allow_redirects=False,  # another address may be anything, a file of this machine too
        ) as reply:
            if reply.status_code != requests.codes.ok:
                raise TimeStampError(
                    f"{url}: answers {reply.status_code} {str(reply.reason)[:80]}, expected a "
                    f"time-stamp{_moved(reply.headers.get('Location'))}"
                )
            return _bounded(url, reply.iter_content(1))
    except requests.RequestException as error:
        raise TimeStampError(f"{url}: cannot be reached ({innermost_reason(error)})") from error


def _bounded(url: str, octets: Iterator[bytes]) -> bytes:
    """Return the whole answer; TimeStampError if it is too long or takes too long."""
    answer, end = bytearray(), time.monotonic() + _DEADLINE_S
    for octet in octets:
        answer += octet
        if len(answer) > LARGEST_TOKEN_BYTES:
            raise TimeStampError(f"{url}: the answer is longer than {LARGEST_TOKEN_BYTES} bytes")
        if time.monotonic() > end:
            raise TimeStampError(f"{url}: the answer takes longer than {_DEADLINE_S:.0f} s")
    return bytes(answer)


def _moved(location: str | None) -> str:
    host = urlsplit(location).hostname if location else None
    return f"; it sends on to {host}, name that address instead" if host else ""
