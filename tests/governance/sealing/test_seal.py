import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from governance.evidence.journal import read_journal
from governance.evidence.store import EvidenceStore
from governance.records.errors import MedisynthGovError, SealError
from governance.records.evaluation import EvaluationRecord
from governance.records.partition import SealRecord
from governance.reports.audit_report import write_audit_report
from governance.reports.card.write import write_model_card
from governance.reports.evidence import load_evidence
from governance.sealing.access_log import AccessLog
from governance.sealing.ledger import Ledger
from governance.sealing.seal import (
    Leaf,
    SealedTestSet,
    SealLeaves,
    read_seal,
    remove_vault,
    reopen_sealed_test_set,
    seal_root,
    seal_test_set,
)
from governance.sealing.vault import Vault
from tests.governance.reports.report_tools import pdf_text
from tests.stored_run.stored import Variant, write_run

PLAN, MODEL = "b" * 64, "c" * 64
N_IMAGES = 5


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_leaf(number: int, **changes: object) -> Leaf:
    facts: dict[str, object] = {
        "id": f"image {number}",
        "path": f"images/{number}.png",
        "file_sha256": sha256(b"file %d" % number),
        "pixel_sha256": sha256(b"pixels %d" % number),
        "patient": f"patient {number // 2}",
        "plane": "Fetal brain",
        "brain_plane": "Trans-thalamic",
        "operator": None,
        "machine": None,
        "width": 8,
        "height": 6,
    }
    return Leaf.model_validate({**facts, **changes})


LEAVES = tuple(make_leaf(number) for number in range(N_IMAGES))


def make_data(root: Path) -> Path:
    (root / "images").mkdir(parents=True)
    for number in range(N_IMAGES):
        (root / "images" / f"{number}.png").write_bytes(b"file %d" % number)
    return root


def vault_of(folder: Path, run_id: str = "r1") -> Vault:
    return Vault(folder / "vault" / f"{run_id}.vault", folder / "keys" / f"{run_id}.key")


def seal(folder: Path, run_id: str = "r1", leaves: tuple[Leaf, ...] = LEAVES) -> SealedTestSet:
    if not (folder / "data").exists():
        make_data(folder / "data")
    vault = vault_of(folder, run_id)
    store = EvidenceStore.create(folder / "runs", run_id, tool_version="0.1.0")
    ledger = Ledger(folder / "ledger", "d" * 64)
    return seal_test_set(leaves, store=store, ledger=ledger, data_root=folder / "data", vault=vault)


def read_bytes(data: bytes, leaf: Leaf) -> bytes:
    return data


def open_set(sealed: SealedTestSet, read=read_bytes):
    return sealed.open(purpose="evaluation", plan_sha256=PLAN, model_sha256=MODEL, read=read)


def test_the_root_of_two_images_is_the_one_worked_out_by_hand():
    def leaf_hash(leaf: Leaf) -> bytes:
        text = json.dumps(leaf.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"\x00" + text.encode()).digest()

    expected = sha256(b"\x01" + leaf_hash(LEAVES[0]) + leaf_hash(LEAVES[1]))

    assert seal_root(LEAVES[:2]) == expected


@pytest.mark.parametrize("field", ["patient", "plane", "brain_plane", "path"])
def test_labels_or_paths_swapped_between_two_images_change_the_root(tmp_path, field):
    left, right = LEAVES[0], make_leaf(3, plane="Other", brain_plane="Not A Brain")
    values = {field: getattr(right, field)}, {field: getattr(left, field)}
    swapped = left.model_copy(update=values[0]), right.model_copy(update=values[1])

    assert seal_root((left, right)) != seal_root(swapped)


def test_sealing_writes_leaves_seal_journal_and_ledger_with_one_root(tmp_path):
    sealed = seal(tmp_path)

    run_dir = tmp_path / "runs" / "r1"
    record = SealRecord.model_validate_json((run_dir / "data" / "seal.json").read_bytes())
    leaves = json.loads((run_dir / "data" / "seal_leaves.json").read_bytes())["leaves"]
    event = read_journal(run_dir / "journal.jsonl").events[-1]
    (entry,) = Ledger(tmp_path / "ledger", "d" * 64).events()
    assert record == sealed.record
    assert (record.n_images, record.n_patients) == (5, 3)
    assert (record.n_earlier_seals, record.n_earlier_openings) == (0, 0)
    assert [Leaf.model_validate(leaf) for leaf in leaves] == list(LEAVES)
    assert event.type == "test set sealed"
    assert record.encryption.startswith("AES-256-GCM")
    assert event.body["ledger_head"] == entry.digest
    assert event.body["merkle_root"] == entry.body["merkle_root"] == record.merkle_root
    assert record.merkle_root == seal_root(LEAVES)


def test_the_root_does_not_depend_on_the_order_of_listing(tmp_path):
    forwards, backwards = seal(tmp_path), seal(tmp_path, "r2", LEAVES[::-1])

    assert forwards.record.merkle_root == backwards.record.merkle_root


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ((), "no images"),
        ((make_leaf(1), make_leaf(1)), "two images with id 'image 1'"),
        ((make_leaf(1), make_leaf(2, path="images/1.png")), "two images with path"),
        ((make_leaf(1, path="../1.png"),), "inside the data root"),
        ((make_leaf(1, path="/etc/passwd"),), "inside the data root"),
    ],
)
def test_a_test_set_that_is_empty_doubled_or_outside_is_not_sealed(tmp_path, leaves, message):
    with pytest.raises(SealError, match=message):
        seal(tmp_path, leaves=leaves)

    assert Ledger(tmp_path / "ledger", "d" * 64).n_seals == 0


def test_a_run_seals_once(tmp_path):
    make_data(tmp_path / "data")
    store = EvidenceStore.create(tmp_path / "runs", "r1", tool_version="0.1.0")
    ledger = Ledger(tmp_path / "ledger", "d" * 64)
    seal_test_set(LEAVES, store=store, ledger=ledger, data_root=tmp_path / "data")

    with pytest.raises(SealError, match="one run has one held-out test set"):
        seal_test_set(LEAVES[:2], store=store, ledger=ledger, data_root=tmp_path / "data")


def test_opening_hands_over_every_image_in_the_order_of_ids(tmp_path):
    make_data(tmp_path / "data")

    opening, images = open_set(seal(tmp_path, leaves=LEAVES[::-1]))

    assert images == [b"file %d" % number for number in range(N_IMAGES)]
    assert (opening.number, opening.label, opening.n_images) == (1, "confirmatory", N_IMAGES)
    assert (opening.plan_sha256, opening.model_sha256) == (PLAN, MODEL)


def test_the_opening_is_on_record_before_the_first_byte_is_read(tmp_path):
    make_data(tmp_path / "data")
    sealed = seal(tmp_path)
    seen = []

    def read(data: bytes, leaf: Leaf) -> None:
        events = read_journal(tmp_path / "runs" / "r1" / "journal.jsonl").events
        n_openings = Ledger(tmp_path / "ledger", "d" * 64).n_openings
        seen.append((events[-1].type, events[-1].body["purpose"], n_openings))

    open_set(sealed, read)

    assert seen == [("test set opened", "evaluation", 1)] * N_IMAGES


def test_a_second_opening_in_one_run_is_refused_also_after_a_restart(tmp_path):
    make_data(tmp_path / "data")
    sealed = seal(tmp_path)
    open_set(sealed)
    restarted = SealedTestSet(
        sealed.record,
        sealed.leaves,
        store=sealed._store,
        ledger=Ledger(tmp_path / "ledger", "d" * 64),
        vault=vault_of(tmp_path),
    )

    for second in (sealed, restarted):
        with pytest.raises(SealError, match="opens the held-out test set once"):
            open_set(second)
    assert Ledger(tmp_path / "ledger", "d" * 64).n_openings == 1


def test_the_opening_of_a_later_run_on_the_same_data_is_exploratory(tmp_path):
    make_data(tmp_path / "data")
    open_set(seal(tmp_path, "r1"))
    second = seal(tmp_path, "r2", LEAVES[:3])

    opening, _ = open_set(second)

    assert (second.record.n_earlier_seals, second.record.n_earlier_openings) == (1, 1)
    assert (opening.number, opening.label) == (2, "exploratory, opening 2")


@pytest.mark.parametrize("fault", ["changed", "missing", "link", "folder"])
def test_a_file_that_is_no_longer_the_ingested_one_is_named_and_nothing_is_sealed(tmp_path, fault):
    images = make_data(tmp_path / "data") / "images"
    (images / "2.png").rename(images / "moved")
    if fault == "changed":
        (images / "2.png").write_bytes(b"file 3")
    elif fault == "link":
        (images / "2.png").symlink_to(images / "moved")
    elif fault == "folder":
        (images / "2.png").mkdir()

    with pytest.raises(SealError, match=r"images/2\.png"):
        seal(tmp_path)

    assert Ledger(tmp_path / "ledger", "d" * 64).n_seals == 0
    assert list((tmp_path / "vault").iterdir()) == list((tmp_path / "keys").iterdir()) == []


def test_the_opening_needs_the_data_folder_no_more(tmp_path):
    sealed = seal(tmp_path)
    shutil.rmtree(tmp_path / "data")

    _, images = open_set(sealed)

    assert images == [b"file %d" % number for number in range(N_IMAGES)]


def test_sealing_writes_nothing_into_the_data_folder_and_no_key_into_the_run_folder(tmp_path):
    make_data(tmp_path / "data")
    before = sorted(path for path in (tmp_path / "data").rglob("*"))

    seal(tmp_path)

    key = vault_of(tmp_path).key_path.read_bytes().strip()
    written = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert sorted(path for path in (tmp_path / "data").rglob("*")) == before
    assert not any(key in path.read_bytes() or b"file 1" in path.read_bytes() for path in written)
    assert key.decode() not in " ".join(os.environ.values())


def test_the_key_is_not_read_before_the_opening_is_in_the_ledger_and_the_journal(tmp_path):
    sealed = seal(tmp_path)
    log = AccessLog()
    log.start([vault_of(tmp_path).key_path, vault_of(tmp_path).path])
    journal = tmp_path / "runs" / "r1" / "journal.jsonl"
    journal.rename(journal.with_name("away"))  # so that the opening cannot be recorded

    with pytest.raises(MedisynthGovError):
        open_set(sealed)

    assert log.stop() == 0


@pytest.mark.parametrize("what", ["vault", "key"])
def test_an_opening_that_finds_no_vault_or_key_is_refused_before_it_counts(tmp_path, what):
    sealed = seal(tmp_path)
    vault = vault_of(tmp_path)
    (vault.path if what == "vault" else vault.key_path).unlink()

    with pytest.raises(SealError, match=r"cannot be found .*put the file back"):
        open_set(sealed)

    assert Ledger(tmp_path / "ledger", "d" * 64).n_openings == 0


def test_an_opening_that_fails_counts(tmp_path):
    sealed = seal(tmp_path)
    path = vault_of(tmp_path).path
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    handed_over = []

    with pytest.raises(SealError, match="'image 4' does not decrypt"):
        open_set(sealed, lambda data, leaf: handed_over.append(leaf.id))

    assert handed_over == [f"image {number}" for number in range(4)]
    assert Ledger(tmp_path / "ledger", "d" * 64).n_openings == 1


def test_an_image_whose_label_was_changed_after_sealing_is_not_handed_over(tmp_path):
    sealed = seal(tmp_path)
    leaves = (make_leaf(0, plane="Other"), *LEAVES[1:])
    # Root and record forged together, so that only the vault can tell.
    record = sealed.record.model_copy(update={"merkle_root": seal_root(leaves)})
    forged = SealedTestSet(
        record, leaves, store=sealed._store, ledger=sealed._ledger, vault=vault_of(tmp_path)
    )
    path = vault_of(tmp_path).path
    data = path.read_bytes()
    path.write_bytes(data[:8] + bytes.fromhex(record.merkle_root) + data[40:])

    with pytest.raises(SealError, match="'image 0' does not decrypt"):
        open_set(forged)


def test_leaves_changed_in_memory_are_refused_before_the_opening_counts(tmp_path):
    sealed = seal(tmp_path)
    other = SealedTestSet(
        sealed.record,
        LEAVES[:-1],
        store=sealed._store,
        ledger=sealed._ledger,
        vault=vault_of(tmp_path),
    )

    with pytest.raises(SealError, match="leaves with root"):
        open_set(other)
    assert Ledger(tmp_path / "ledger", "d" * 64).n_openings == 0


def test_a_seal_without_an_encrypted_copy_is_not_opened(tmp_path):
    store = EvidenceStore.create(tmp_path / "runs", "r1", tool_version="0.1.0")
    ledger = Ledger(tmp_path / "ledger", "d" * 64)
    sealed = seal_test_set(LEAVES, store=store, ledger=ledger, data_root=tmp_path)

    with pytest.raises(SealError, match="without an encrypted copy"):
        open_set(sealed)
    assert sealed.record.encryption == ""


def test_vault_and_key_are_removed_on_record_once(tmp_path):
    sealed = seal(tmp_path)
    open_set(sealed)
    vault, journal = vault_of(tmp_path), tmp_path / "runs" / "r1" / "journal.jsonl"

    removed = [remove_vault(sealed._store, vault) for _ in range(2)]

    assert removed == [True, False]
    assert not vault.path.exists()
    assert not vault.key_path.exists()
    last = read_journal(journal).events[-1]
    assert (last.type, last.body) == ("vault removed", {"n_files": 2, "opened": True})


def test_a_removal_that_a_kill_kept_from_the_journal_is_recorded_later(tmp_path):
    sealed = seal(tmp_path)
    vault_of(tmp_path).remove()

    assert remove_vault(sealed._store, vault_of(tmp_path))

    journal = tmp_path / "runs" / "r1" / "journal.jsonl"
    assert read_journal(journal).events[-1].body == {"n_files": 0, "opened": False}


def test_a_run_that_sealed_nothing_has_no_vault_to_remove(tmp_path):
    store = EvidenceStore.create(tmp_path / "runs", "r1", tool_version="0.1.0")

    assert not remove_vault(store, vault_of(tmp_path))
    with pytest.raises(SealError, match="sealed no test set"):
        read_seal(store.run_dir)


def test_the_access_log_counts_every_way_to_open_a_sealed_file(tmp_path):
    images = make_data(tmp_path / "data") / "images"
    (tmp_path / "link").symlink_to(images)
    os.link(images / "1.png", tmp_path / "hard")
    log = AccessLog()
    log.start([images / f"{number}.png" for number in (0, 1)])

    (images / "0.png").read_bytes()
    (tmp_path / "link" / "0.png").read_bytes()
    (tmp_path / "hard").read_bytes()
    os.close(os.open(bytes(images / "1.png"), os.O_RDONLY))
    shutil.copy(images / "0.png", tmp_path / "copy")
    (images / "2.png").read_bytes()  # not sealed
    (tmp_path / "copy").read_bytes()  # a copy is another file
    (images / "0.png").stat()  # looks at no content

    assert log.stop() == 5


def test_the_access_log_hears_nothing_before_start_and_after_stop(tmp_path):
    image = make_data(tmp_path / "data") / "images" / "0.png"
    log = AccessLog()
    image.read_bytes()
    log.start([image])
    n_opens = log.stop()
    image.read_bytes()

    assert n_opens == log.n_opens == 0


def test_the_access_log_counts_a_sealed_path_whose_file_was_replaced(tmp_path):
    image = make_data(tmp_path / "data") / "images" / "0.png"
    log = AccessLog()
    log.start([image])
    image.unlink()
    image.write_bytes(b"new")  # counts: the sealed path is opened

    assert log.stop() == 1


def test_the_opening_is_seen_by_the_access_log_and_touches_no_original(tmp_path):
    root = make_data(tmp_path / "data")
    sealed = seal(tmp_path)
    originals, vault = AccessLog(), AccessLog()
    originals.start([root / leaf.path for leaf in sealed.leaves])
    vault.start([vault_of(tmp_path).path, vault_of(tmp_path).key_path])

    open_set(sealed)

    assert (originals.stop(), vault.stop()) == (0, 2)  # one vault, one key


def reopened(folder: Path) -> SealedTestSet:
    """The seal of a run that was killed, taken up by another process."""
    store = EvidenceStore.reopen(folder / "runs" / "r1", tool_version="0.1.0")
    store.resume({"reason": "killed"})
    ledger = Ledger(folder / "ledger", "d" * 64)
    return reopen_sealed_test_set(store=store, ledger=ledger, vault=vault_of(folder))


def open_it(sealed: SealedTestSet):
    opening, _ = sealed.open(
        purpose="evaluation", plan_sha256=PLAN, model_sha256=MODEL, read=read_bytes
    )
    return opening


def test_a_resumed_run_has_the_seal_that_was_made(tmp_path):
    make_data(tmp_path / "data")
    first = seal(tmp_path)

    again = reopened(tmp_path)

    assert again.record == first.record
    assert again.leaves == first.leaves
    assert open_it(again).label == "confirmatory"


def test_an_opening_before_the_kill_counts(tmp_path):
    make_data(tmp_path / "data")
    open_it(seal(tmp_path))

    again = reopened(tmp_path)

    assert open_it(again).label == "exploratory, opening 2"
    with pytest.raises(SealError, match="opens the held-out test set once"):
        open_it(again)


def test_a_run_whose_vault_is_gone_is_not_taken_up_again(tmp_path):
    seal(tmp_path)
    vault_of(tmp_path).path.unlink()

    with pytest.raises(SealError, match=r"r1\.vault: .*or start a new run"):
        reopened(tmp_path)


def test_leaves_that_do_not_give_the_sealed_root_are_refused(tmp_path):
    sealed = seal(tmp_path)
    store, ledger = sealed._store, sealed._ledger
    other = SealLeaves(leaves=LEAVES[:-1])
    store.write_document(other)

    with pytest.raises(SealError, match=r"seal_leaves\.json: leaves with root"):
        reopen_sealed_test_set(store=store, ledger=ledger, vault=vault_of(tmp_path))


def test_reads_that_an_earlier_process_counted_are_added(tmp_path):
    path = make_data(tmp_path / "data") / "images" / "0.png"
    log = AccessLog(n_earlier=2)
    log.start([path])

    path.read_bytes()

    assert log.stop() == 3


def test_the_second_evaluation_of_a_test_set_is_called_so_on_page_one_and_in_the_card(tmp_path):
    open_set(seal(tmp_path, "r1"))
    opening, _ = open_set(seal(tmp_path, "r2"))

    evidence = load_evidence(write_run(tmp_path / "example", Variant(openings=2)))

    assert evidence.get(EvaluationRecord).opening.label == opening.label == "exploratory, opening 2"
    page = pdf_text(write_audit_report(evidence), tmp_path, last_page=1)
    card, facts = write_model_card(evidence)
    assert "exploratory, opening 2" in page
    assert "exploratory, opening 2" in card.decode()
    assert "exploratory, opening 2" in facts.decode()
