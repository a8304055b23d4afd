"""Inclusion proof: shows that one image is among the sealed ones, without the others.

Source: RFC 6962, section 2.1.1 (audit path).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from governance.records.files import sha256_bytes


@dataclass(frozen=True)
class Sibling:
    """One hash of an audit path.

    Attributes:
        side: Side of the running hash on which it is joined.
        sha256: The hash.
    """

    side: Literal["left", "right"]
    sha256: str


def leaf_hash(leaf: bytes) -> str:
    """Return the hash of a leaf, behind the byte 0x00, so that no node can pass for a leaf."""
    return sha256_bytes(b"\x00" + leaf)


def audit_path(leaves: Sequence[bytes], index: int) -> tuple[Sibling, ...]:
    """Return the hashes that lead from one leaf to the root, from the bottom up.

    Raises:
        IndexError: There is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    level = [leaf_hash(leaf) for leaf in leaves]
    path: list[Sibling] = []
    while len(level) > 1:
        if index % 2:
            path.append(Sibling("left", level[index - 1]))
        elif index + 1 < len(level):
            path.append(Sibling("right", level[index + 1]))
        pairs = zip(level[::2], level[1::2], strict=False)
        carried = level[-1:] if len(level) % 2 else []
        level = [_node(left, right) for left, right in pairs] + carried
        index //= 2
    return tuple(path)


def root_of_path(leaf: bytes, path: Sequence[Sibling]) -> str:
    """Return the root from a leaf and its audit path; the tree's own root proves inclusion."""
    found = leaf_hash(leaf)
    for sibling in path:
        pair = (sibling.sha256, found) if sibling.side == "left" else (found, sibling.sha256)
        found = _node(*pair)
    return found


def _node(left: str, right: str) -> str:
    return sha256_bytes(b"\x01" + bytes.fromhex(left) + bytes.fromhex(right))
