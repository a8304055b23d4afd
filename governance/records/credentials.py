"""Credentials in settings: refused before they are recorded, hidden where a message repeats them.

What a run is given is evidence: configuration, command line and declarations are stored, mirrored
and printed in reports. So no address among them may carry a user name, a password or a token.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
_WORDS = r"passwor[dt]|passwd|passphrase|pwd|secret|token|credentials?|signature|api[_-]?key"
# A password may hold unescaped signs, as people write it; a port and a path are none.
_LOGIN = re.compile(
    r"""([a-z][a-z0-9+.-]*://)(?:[^\s/?#'"@:\[]*:(?!\d+[/?#])[^\s'"]*@)""", re.IGNORECASE
)
_NAME_ALONE = re.compile(r"""(https?://)[^\s/?#'"@]+@""", re.IGNORECASE)
_PARAMETER = re.compile(
    rf"""((?:[?&;\#]|%3[bf]|%26)
    (?:[\w.-]*?(?:{_WORDS}|access[_-]?key)[\w.-]*|auth|sig|key|pin)(?:=|%3d))[^&\#;\s'"]+""",
    re.IGNORECASE | re.VERBOSE,
)
_WITHOUT_SCHEME = re.compile(r"(?!.*://)[^\s:/@]*:[^\s@]+@\S+")
_NAME_OF_A_SECRET = re.compile(rf"(?:.*[_-])?(?:{_WORDS}|access[_-]?key)", re.IGNORECASE)
_IN_AN_ADDRESS = "no user name, password or token in an address: every run records it"


def without_credentials(text: str) -> str:
    """Return a text with user name, password and token of every address in it replaced by "***"."""
    text = _LOGIN.sub(rf"\1{HIDDEN}@", text)
    text = _NAME_ALONE.sub(rf"\1{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\1{HIDDEN}", text)


def has_credentials(text: str) -> bool:
    """Whether an address in a text carries a user name with password, a token, or for http a name."""
    shown = unquote(text)
    return without_credentials(text) != text or without_credentials(shown) != shown


def credentials_in(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Find the first setting that carries a credential.

    Args:
        values: Settings, nested as in YAML.

    Returns:
        Its dotted key and a sentence part that never repeats the value; None if there is none.
    """
    for key, value in _texts(values, ""):
        name = key.rpartition(".")[2]
        if key == "tracking.uri" and (has_credentials(value) or _WITHOUT_SCHEME.fullmatch(value)):
            return key, (
                f"{_IN_AN_ADDRESS}; MLflow reads them from the environment variables "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, a database driver from its "
                "own, e.g. PGPASSWORD"
            )
        if has_credentials(value):
            return key, f"{_IN_AN_ADDRESS}; leave it out"
        if value and _NAME_OF_A_SECRET.fullmatch(name):
            return key, (
                "looks like a password or token, and every run records its settings; let the "
                "program that needs it read it from its own environment variable or file"
            )
    return None


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(str(name), key)
            yield from _texts(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part, key)
