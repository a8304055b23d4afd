"""Audit paths of a Merkle tree, compared with the example of RFC 6962, section 2.1.3."""

import hashlib

import pytest

from governance.evidence.manifest import merkle_root
from governance.sealing.seal import Sibling, audit_path, leaf_hash, root_of_path

D = [b"d%d" % k for k in range(7)]


def node(left: str, right: str) -> str:
    return hashlib.sha256(b"\x01" + bytes.fromhex(left) + bytes.fromhex(right)).hexdigest()


# The names of the RFC's picture: a to f and j are leaves, the others nodes.
a, b, c, d, e, f, j = (hashlib.sha256(b"\x00" + leaf).hexdigest() for leaf in D)
g, h, i = node(a, b), node(c, d), node(e, f)
k, l_ = node(g, h), node(i, j)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, [("right", b), ("right", h), ("right", l_)]),
        (3, [("left", c), ("left", g), ("right", l_)]),
        (4, [("right", f), ("right", j), ("left", k)]),
        (6, [("left", i), ("left", k)]),
    ],
)
def test_the_paths_of_seven_leaves_are_those_of_the_rfc(index, expected):
    assert audit_path(D, index) == tuple(Sibling(*one) for one in expected)


@pytest.mark.parametrize("n", range(1, 18))
def test_every_leaf_leads_to_the_root_and_no_other_leaf_does(n):
    leaves = [b"leaf %d" % number for number in range(n)]
    root = merkle_root(leaves)

    for index, leaf in enumerate(leaves):
        path = audit_path(leaves, index)
        assert root_of_path(leaf, path) == root
        assert root_of_path(b"another", path) != root
        assert len(path) <= (n - 1).bit_length()


def test_one_leaf_is_its_own_root():
    assert audit_path([b"only"], 0) == ()
    assert root_of_path(b"only", ()) == leaf_hash(b"only") == merkle_root([b"only"])


@pytest.mark.parametrize("index", [-1, 7])
def test_a_leaf_that_is_not_there_has_no_path(index):
    with pytest.raises(IndexError):
        audit_path(D, index)
