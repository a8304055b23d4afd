"""Signing keys: making one, and opening the one that the configuration names."""

from pathlib import Path

import platformdirs

from governance.evidence.signing import KeyPair, RunSigner, load_signer, make_key_pair
from governance.evidence.time_stamp import Authority, read_authority
from pipelines.config_sections import SigningConfig


def open_signer(config: SigningConfig) -> RunSigner | None:
    """Open the configured key before any work; None when the run is to stay unsigned.

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
    """Certificate of the configured time-stamp authority; None when none is configured.

    Raises:
        AnchorError: The file holds no certificate.
    """
    path = config.timestamp_certificate
    return None if path is None else read_authority(Path(path))


def make_keys(folder: Path | None) -> tuple[KeyPair, str]:
    """Make a key pair and say how to use it.

    Args:
        folder: Where to write it; None takes the user's configuration folder.

    Raises:
        SigningKeyError: There is a key already.
        RecordWriteError: The folder cannot be written.
    """
    place = folder or platformdirs.user_config_path("medisynth-gov")
    pair = make_key_pair(place.expanduser().resolve())
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
