"""The vault: what is encrypted comes back as it was, or not at all."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from governance.confinement.confine import KEY_TARGET, VAULT_TARGET, landlock_abi, level_in_force
from governance.records.errors import RecordWriteError, SealError
from governance.records.partition import RefusedRead
from governance.sealing.vault import Vault, VaultItem

ROOT = "a" * 64
ITEMS = tuple(VaultItem(f"image {k}", b"bound to %d" % k) for k in range(3))
IMAGES = (b"first image", b"", bytes(range(256)) * 300)
HEADER = 8 + 32 + 32 + 8  # magic, root, check value, number of images


def new_vault(folder: Path, name: str = "r1") -> Vault:
    return Vault(folder / "vault" / f"{name}.vault", folder / "keys" / f"{name}.key")


def written(folder: Path, name: str = "r1") -> Vault:
    vault = new_vault(folder, name)
    vault.write(ROOT, len(ITEMS), zip(ITEMS, IMAGES, strict=True))
    return vault


def test_what_was_written_comes_back(tmp_path):
    vault = new_vault(tmp_path)

    n_bytes = vault.write(ROOT, len(ITEMS), zip(ITEMS, IMAGES, strict=True))

    assert tuple(vault.read(ROOT, ITEMS)) == IMAGES
    # each image: a nonce of 12 bytes, a length of 8, its bytes, a tag of 16
    assert n_bytes == vault.path.stat().st_size == HEADER + sum(36 + len(i) for i in IMAGES)


def test_an_image_is_aes_256_gcm_with_its_binding_as_associated_data(tmp_path):
    vault = written(tmp_path)
    data, key = vault.path.read_bytes(), bytes.fromhex(vault.key_path.read_text())

    nonce, sealed = data[HEADER : HEADER + 12], data[HEADER + 20 : HEADER + 36 + len(IMAGES[0])]

    assert len(key) == 32
    assert AESGCM(key).decrypt(nonce, sealed, b"bound to 0") == b"first image"


def test_two_vaults_of_the_same_images_share_neither_key_nor_nonce_nor_ciphertext(tmp_path):
    first, second = written(tmp_path, "r1"), written(tmp_path, "r2")

    blocks = [vault.path.read_bytes()[40:] for vault in (first, second)]
    assert first.key_path.read_bytes() != second.key_path.read_bytes()
    assert blocks[0][:32] != blocks[1][:32]
    assert blocks[0][40:52] != blocks[1][40:52]
    assert IMAGES[0] not in first.path.read_bytes()


def test_vault_and_key_can_be_read_by_their_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        vault = written(tmp_path)
    finally:
        os.umask(before)

    for path in (vault.path, vault.key_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_one_flipped_bit_anywhere_is_found(tmp_path):
    vault = new_vault(tmp_path)
    vault.write(ROOT, 1, [(ITEMS[0], b"image")])
    whole = vault.path.read_bytes()

    for place in range(len(whole)):
        vault.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SealError):
            list(vault.read(ROOT, ITEMS[:1]))


@pytest.mark.parametrize("n_bytes", [0, 5, HEADER, HEADER + 30, -1])
def test_a_vault_that_was_cut_is_found(tmp_path, n_bytes):
    vault = written(tmp_path)
    vault.path.write_bytes(vault.path.read_bytes()[:n_bytes])

    with pytest.raises(SealError, match="ends before"):
        list(vault.read(ROOT, ITEMS))


def test_what_follows_the_last_image_is_found(tmp_path):
    vault = written(tmp_path)
    with vault.path.open("ab") as stream:
        stream.write(b"x")

    with pytest.raises(SealError, match="goes on after its last image"):
        list(vault.read(ROOT, ITEMS))


def test_images_that_changed_places_do_not_decrypt(tmp_path):
    vault = new_vault(tmp_path)
    vault.write(ROOT, 2, zip(ITEMS[:2], (b"left", b"rite"), strict=True))
    data = vault.path.read_bytes()
    left, right = data[HEADER : HEADER + 40], data[HEADER + 40 :]
    vault.path.write_bytes(data[:HEADER] + right + left)

    with pytest.raises(SealError, match="'image 0' does not decrypt"):
        list(vault.read(ROOT, ITEMS[:2]))


def test_another_root_or_number_of_images_is_refused(tmp_path):
    vault = written(tmp_path)

    with pytest.raises(SealError, match="3 images of the seal aaaaaaaaaaaa, expected 3 of bbbb"):
        list(vault.read("b" * 64, ITEMS))
    with pytest.raises(SealError, match="expected 2 of"):
        list(vault.read(ROOT, ITEMS[:2]))


def test_the_key_of_another_vault_is_named_as_such(tmp_path):
    vault, other = written(tmp_path), written(tmp_path, "r2")
    other.key_path.replace(vault.key_path)

    with pytest.raises(SealError, match=r"r1\.key: the key of another vault"):
        list(vault.read(ROOT, ITEMS))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no key, expected 64 hex digits"), ("zz" * 32, "no key"), ("ab" * 16, "no key")],
)
def test_a_file_that_holds_no_key_is_refused(tmp_path, text, message):
    vault = written(tmp_path)
    vault.key_path.write_text(text)

    with pytest.raises(SealError, match=message):
        list(vault.read(ROOT, ITEMS))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path, mode):
    vault = written(tmp_path)
    vault.key_path.chmod(mode)

    with pytest.raises(SealError, match=f"readable by others \\({mode:04o}.*chmod 600"):
        list(vault.read(ROOT, ITEMS))


def test_a_link_in_place_of_vault_or_key_is_not_followed(tmp_path):
    vault = written(tmp_path)
    for path in (vault.key_path, vault.path):
        away = path.rename(path.with_name("away"))
        path.symlink_to(away)
        with pytest.raises(SealError, match="cannot be read"):
            list(vault.read(ROOT, ITEMS))
        with pytest.raises(SealError, match="expected a regular file"):
            vault.check_present()
        path.unlink()
        away.rename(path)


def test_a_vault_is_not_written_over(tmp_path):
    vault = written(tmp_path)

    with pytest.raises(SealError, match="has a vault or a key already"):
        written(tmp_path)
    assert tuple(vault.read(ROOT, ITEMS)) == IMAGES


def test_images_that_cannot_be_had_leave_neither_vault_nor_key(tmp_path):
    def items():
        yield ITEMS[0], IMAGES[0]
        raise SealError("gone")

    vault = new_vault(tmp_path)
    with pytest.raises(SealError, match="gone"):
        vault.write(ROOT, 2, items())
    with pytest.raises(SealError, match="1 images came, expected 2"):
        vault.write(ROOT, 2, [(ITEMS[0], IMAGES[0])])

    assert list(vault.path.parent.iterdir()) == list(vault.key_path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(RecordWriteError, match="file/r1"):
        Vault(tmp_path / "vault" / "r1", tmp_path / "file" / "r1.key").write(ROOT, 0, [])
    with pytest.raises(RecordWriteError, match="file/r1"):
        Vault(tmp_path / "file" / "r1", tmp_path / "keys" / "r1.key").write(ROOT, 0, [])
    assert list((tmp_path / "keys").iterdir()) == []


def test_removing_takes_key_and_vault_and_counts_what_was_there(tmp_path):
    vault = written(tmp_path)
    vault.check_present()
    vault.key_path.unlink()

    assert [vault.remove(), vault.remove()] == [1, 0]
    assert not vault.path.exists()


CONFINED = """
import json, sys
from pathlib import Path

from governance.confinement.confine import attempt_read, confine, python_roots

work, must_refuse = Path(sys.argv[1]), json.loads(sys.argv[2])
forbidden = [Path(path) for path in must_refuse.values()]
kept = confine(read=python_roots(forbidden=forbidden), write=[work], forbidden=forbidden)
tried = [attempt_read(Path(path), name).model_dump() for name, path in must_refuse.items()]
print(json.dumps([kept.level, tried]))
"""


@pytest.mark.skipif(landlock_abi() == 0, reason="this kernel has no Landlock")
def test_a_confined_process_can_read_neither_vault_nor_key_which_is_level_four(tmp_path):
    vault, work = written(tmp_path), tmp_path / "work"
    work.mkdir()
    targets = {VAULT_TARGET: str(vault.path), KEY_TARGET: str(vault.key_path)}

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", CONFINED, str(work), json.dumps(targets)],
        capture_output=True,
        text=True,
        check=True,
    )

    level, tried = json.loads(done.stdout)
    assert [one["error"] for one in tried] == ["PermissionError 13"] * 2
    assert level_in_force(level, [RefusedRead(**one) for one in tried])[0] == 4
