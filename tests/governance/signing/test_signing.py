"""Keys, the manifest's signature, statements of steps, the certified PDF."""

import json
import shutil
import stat
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from securesystemslib.dsse import Envelope

from governance.evidence.manifest import add_outputs, close_evidence, read_manifest
from governance.evidence.store import EvidenceStore
from governance.records.errors import AnchorError, SigningKeyError
from governance.records.files import canonical_json
from governance.records.people import SigningRecord
from governance.reports.audit_report import write_audit_report
from governance.reports.evidence import load_evidence
from governance.signing.keys import (
    KeyPair,
    RunSigner,
    check_manifest_signature,
    ed25519_public_key,
    is_signed_by,
    load_signer,
    make_key_pair,
    parse_key,
    read_public_key,
    sign_manifest,
)
from governance.signing.pdf import certify_pdf, check_certified_pdf
from governance.verify.folder import verify_run
from governance.verify.signatures import read_anchors
from pipelines.steps.s8_report import write_outputs
from tests.governance.signing.signed_run import (
    NOW,
    RUN_ID,
    STEPS,
    make_signed_run,
    make_store,
    small_pdf,
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signer(pair: KeyPair) -> RunSigner:
    return load_signer(str(pair.private_key), identity="A. Person, a hospital")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, signer: RunSigner) -> Path:
    return make_signed_run(tmp_path_factory.mktemp("built"), signer)


@pytest.fixture
def run_dir(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "run"))


def faults_of(run_dir: Path) -> tuple[str, ...]:
    return verify_run(run_dir).faults


def test_a_new_private_key_is_readable_by_its_owner_alone(pair: KeyPair) -> None:
    assert stat.S_IMODE(pair.private_key.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" in pair.private_key.read_bytes()
    assert b"PRIVATE KEY" not in pair.public_key.read_bytes() + pair.certificate.read_bytes()
    assert read_public_key(pair.public_key).keyid == pair.key_id


@pytest.mark.parametrize("name", ["signing_key.pem", "signing_key.pub", "signing_key.crt"])
def test_keygen_overwrites_none_of_its_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"precious")

    with pytest.raises(SigningKeyError, match=rf"{name}: exists already"):
        make_key_pair(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"precious"


def test_a_key_signs_and_only_its_own_signature_over_the_same_bytes_counts(
    signer: RunSigner, tmp_path: Path
) -> None:
    other = load_signer(str(make_key_pair(tmp_path).private_key))
    key = parse_key(str(signer.record.key_id), dict(signer.record.key or {}))
    signature = signer.sign(b"manifest")

    assert is_signed_by(key, b"manifest", signature)
    assert not is_signed_by(key, b"manifesT", signature)
    assert not is_signed_by(key, b"manifest", other.sign(b"manifest"))
    assert not is_signed_by(key, b"manifest", b"")


def test_a_uri_of_a_file_is_that_file(pair: KeyPair) -> None:
    signer = load_signer(f"file2:{pair.private_key}")

    assert signer.record.key_id == pair.key_id
    assert signer.key_path == pair.private_key.resolve()


def ecdsa_key() -> bytes:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("data", "mode", "reason"),
    [
        (None, 0o600, r"cannot be read \(No such file or directory\)"),
        (b"", 0o600, "is no private key"),
        (b"\xff\x00", 0o600, "is no private key"),
        (ecdsa_key(), 0o600, "is not an Ed25519 key"),
        (ecdsa_key(), 0o640, "can be read or written by others .mode 640., expected 600"),
        (ecdsa_key(), 0o604, "can be read or written by others"),
    ],
)
def test_a_key_that_cannot_be_used_is_one_sentence_with_exit_code_7(
    tmp_path: Path, data: bytes | None, mode: int, reason: str
) -> None:
    path = tmp_path / "key.pem"
    if data is not None:
        path.write_bytes(data)
        path.chmod(mode)

    with pytest.raises(SigningKeyError, match=reason) as caught:
        load_signer(str(path))

    assert caught.value.exit_code == 7
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_elsewhere_needs_a_known_scheme_and_its_public_key(pair: KeyPair) -> None:
    with pytest.raises(SigningKeyError, match="unknown scheme 'ftp'; expected a file or one of"):
        load_signer("ftp:key")
    with pytest.raises(SigningKeyError, match=r"give signing\.public_key"):
        load_signer("hsm:2?label=x")
    with pytest.raises(SigningKeyError, match="the key kept by 'hsm' cannot be used"):
        load_signer("hsm:2?label=x", public_key=pair.public_key)


def test_a_foreign_certificate_or_public_key_is_refused(pair: KeyPair, tmp_path: Path) -> None:
    other = make_key_pair(tmp_path)

    with pytest.raises(SigningKeyError, match="the certificate is of another key"):
        load_signer(str(pair.private_key), certificate=other.certificate)
    with pytest.raises(SigningKeyError, match="not the public key of"):
        load_signer(str(pair.private_key), public_key=other.public_key)


def test_without_a_certificate_a_key_signs_all_but_the_pdf(pair: KeyPair, tmp_path: Path) -> None:
    shutil.copy(pair.private_key, tmp_path / "alone.pem")
    signer = load_signer(str(tmp_path / "alone.pem"))

    run_dir = make_signed_run(tmp_path / "runs", signer)

    assert not signer.record.has_certificate
    assert not (run_dir / "report-signed.pdf").exists()
    assert faults_of(run_dir) == ()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keyid": "a"}', "-----BEGIN nothing", "\0"])
def test_what_is_no_public_key_is_said_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)

    with pytest.raises(SigningKeyError, match="no public key; expected the"):
        read_public_key(tmp_path / "k")


def test_under_the_id_of_a_key_no_other_key_is_accepted(signer: RunSigner, tmp_path: Path) -> None:
    other = load_signer(str(make_key_pair(tmp_path).private_key))

    with pytest.raises(ValueError, match="the id is not that of the key"):
        parse_key(str(signer.record.key_id), dict(other.record.key or {}))


P25519 = 2**255 - 19


def is_small_order(y: int, sign: int) -> bool:
    """Whether a point of Ed25519 is one of the eight whose multiple by 8 is the neutral point."""
    d = -121665 * pow(121666, -1, P25519) % P25519
    square = (y * y - 1) * pow(d * y * y + 1, -1, P25519) % P25519
    x = pow(square, (P25519 + 3) // 8, P25519)
    if (x * x - square) % P25519:
        x = x * pow(2, (P25519 - 1) // 4, P25519) % P25519
    assert (x * x - square) % P25519 == 0
    x = x if x % 2 == sign else -x % P25519
    for _ in range(3):
        product = d * x * x * y * y % P25519
        x, y = (
            2 * x * y * pow(1 + product, -1, P25519) % P25519,
            (y * y + x * x) * pow(1 - product, -1, P25519) % P25519,
        )
    return (x, y) == (0, 1)


def test_a_key_for_which_anybody_can_sign_is_no_key(signer: RunSigner) -> None:
    from governance.signing.keys import _SMALL_ORDER

    for text in _SMALL_ORDER:
        for sign in (0, 1):
            number = int.from_bytes(bytes.fromhex(text), "little")
            assert is_small_order(number % P25519, sign), text
            public = (number | sign << 255).to_bytes(32, "little")
            with pytest.raises(ValueError, match="a point of small order"):
                ed25519_public_key(public)
    public = bytes.fromhex((signer.record.key or {})["keyval"]["public"])
    assert ed25519_public_key(public).public_bytes_raw() == public
    y = int.from_bytes(public, "little") & (1 << 255) - 1
    assert not is_small_order(y, public[-1] >> 7)


def test_a_signed_run_verifies_and_says_that_the_identity_is_not_vouched_for(
    run_dir: Path, signer: RunSigner
) -> None:
    result = verify_run(run_dir)

    assert result.faults == ()
    assert result.signature == (
        f"signed by key id {signer.record.key_id} as 'A. Person, a hospital' (locally generated "
        "key, identity not vouched for); checked with the key in the run only: --key FILE checks "
        "it with one held elsewhere"
    )


def test_a_run_is_checked_against_a_key_that_the_auditor_holds(
    run_dir: Path, pair: KeyPair, tmp_path: Path
) -> None:
    right = verify_run(run_dir, read_anchors(key=pair.public_key))
    other = make_key_pair(tmp_path / "other")
    wrong = verify_run(run_dir, read_anchors(key=other.public_key))

    assert right.faults == ()
    assert right.signature.endswith(f"checked with the key in {pair.public_key}")
    assert wrong.faults == (
        f"manifest.sig: by key {pair.key_id}, expected key {other.key_id} of {other.public_key}",
    )


def test_unsigned_is_said_and_fails_only_when_a_signature_was_asked_for(
    tmp_path: Path, pair: KeyPair
) -> None:
    run_dir = make_signed_run(tmp_path, None)

    assert (verify_run(run_dir).signature, verify_run(run_dir).faults) == ("unsigned", ())
    (required,) = verify_run(run_dir, read_anchors(require_signature=True)).faults
    assert required == "manifest.sig: the run is unsigned, and a signature is required"
    (keyed,) = verify_run(run_dir, read_anchors(key=pair.public_key)).faults
    assert keyed.startswith("manifest.sig: the run is unsigned, expected a signature by key")
    (run_dir / "manifest.sig").write_bytes(b"signed")
    assert faults_of(run_dir) == (
        "manifest.sig: a signature, but signing.json names no key that made it",
    )


def test_an_anchor_that_is_none_is_an_error_of_use_not_a_verdict(pair: KeyPair) -> None:
    for given in ({"head": "00"}, {"root": "g" * 64}, {"key": pair.private_key}):
        with pytest.raises(AnchorError, match=r"^--(head|root|key): ") as caught:
            read_anchors(**given)
        assert caught.value.exit_code == 2


def test_a_resumed_run_keeps_what_was_signed_and_is_signed_anew(
    run_dir: Path, built: Path, signer: RunSigner
) -> None:
    folder = Path(run_dir.rename(run_dir.parent / RUN_ID))
    before = (folder / "manifest.sig").read_bytes()
    store = EvidenceStore.reopen(folder, tool_version="0.1.0")

    store.resume({"reason": "a test"})
    close_evidence(
        folder,
        run_id=RUN_ID,
        tool_version="0.1.0",
        journal=store.journal,
        previous_run=None,
        now=NOW,
    )
    write_outputs(folder, {"model_card.md": b"card\n", "report.pdf": small_pdf()}, signer)

    assert verify_run(folder).faults == ()
    assert (folder / "history" / "1" / "manifest.sig").read_bytes() == before
    assert (folder / "history" / "1" / "attestations" / "train.json").read_bytes() == (
        built / "attestations" / "train.json"
    ).read_bytes()
    assert (folder / "manifest.sig").read_bytes() != before
    held = read_anchors(head=verify_run(built).journal_head)
    (fault,) = verify_run(folder, held).faults
    assert "which is its event" in fault


def test_a_stripped_signature_is_missed_as_soon_as_the_run_has_ended(run_dir: Path) -> None:
    (run_dir / "manifest.sig").unlink()

    (fault,) = faults_of(run_dir)

    assert fault.startswith("manifest.sig: missing; signing.json says that key")
    assert verify_run(run_dir, is_ended=False).faults == ()


def test_reports_that_a_kill_left_unlisted_are_no_fault_of_a_run_that_has_not_ended(
    run_dir: Path,
) -> None:
    manifest = read_manifest(run_dir).model_copy(update={"outputs": ()})
    data = canonical_json(manifest.model_dump(mode="json")) + b"\n"
    (run_dir / "manifest.json").write_bytes(data)
    (run_dir / "manifest.sig").unlink()

    assert verify_run(run_dir, is_ended=False).faults == ()
    assert "report.pdf: not listed in manifest.json" in faults_of(run_dir)
    (run_dir / "report-old.pdf").touch()
    assert verify_run(run_dir, is_ended=False).faults == (
        "report-old.pdf: not listed in manifest.json",
    )


def test_every_byte_of_the_signature_counts(run_dir: Path, signer: RunSigner) -> None:
    key = parse_key(str(signer.record.key_id), dict(signer.record.key or {}))
    path = run_dir / "manifest.sig"
    data = path.read_bytes()
    for offset in range(len(data)):
        for mask in (0x01, 0x20, 0x80):
            path.write_bytes(data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :])
            faults = check_manifest_signature(run_dir, signer.record, key)
            assert faults[0].startswith("manifest.sig: "), (offset, mask)
    assert any(fault.startswith("manifest.sig: ") for fault in faults_of(run_dir))
    path.write_bytes(data)
    assert faults_of(run_dir) == ()


def test_a_signature_by_another_key_under_the_same_id_is_refused(
    run_dir: Path, signer: RunSigner, tmp_path: Path
) -> None:
    other = load_signer(str(make_key_pair(tmp_path / "other").private_key))
    forged = RunSigner(signer.record, None, None, other.signer)
    sign_manifest(run_dir, forged)

    assert faults_of(run_dir) == (
        f"manifest.sig: not the signature of key {signer.record.key_id} over manifest.json",
    )


def test_each_step_has_a_signed_statement_that_others_can_check(
    run_dir: Path, signer: RunSigner
) -> None:
    key = parse_key(str(signer.record.key_id), dict(signer.record.key or {}))
    subjects = {}
    for step in STEPS:
        envelope = Envelope.from_dict(
            json.loads((run_dir / "attestations" / f"{step}.json").read_bytes())
        )
        assert envelope.verify([key], 1) == {key.keyid: key}
        told = json.loads(envelope.payload)
        assert told["_type"] == "https://in-toto.io/Statement/v1"
        assert told["predicate"]["name"] == step
        subjects[step] = [part["name"] for part in told["subject"]]
        listed = read_manifest(run_dir)
        digests = {f.path: f.sha256 for f in (*listed.evidence, *listed.outputs)}
        for part in (*told["subject"], *told["predicate"]["materials"]):
            assert digests[part["name"]] == part["digest"]["sha256"]

    assert subjects == {
        "data": ["data/dataset.json", "data/split.json"],
        "seal": ["data/seal.json", "data/seal_leaves.json"],
        "train": ["checkpoints/last.safetensors", "metrics/training.json"],
        "evaluate": ["metrics/evaluation.json"],
        "report": ["model_card.md", "report-signed.pdf", "report.pdf"],
    }


def test_a_step_that_the_run_did_not_come_to_has_no_statement(
    tmp_path: Path, signer: RunSigner
) -> None:
    run_dir = make_signed_run(tmp_path, signer, steps=())

    names = [path.name for path in (run_dir / "attestations").iterdir()]
    assert names == ["report.json"]
    assert faults_of(run_dir) == ()


def resign(run_dir: Path, signer: RunSigner, path: str, data: bytes) -> None:
    """What the holder of the key could do: change an output, list it, sign the manifest."""
    (run_dir / path).write_bytes(data)
    add_outputs(run_dir, [path])
    sign_manifest(run_dir, signer)


def test_a_statement_with_other_digests_or_no_valid_signature_is_named(
    run_dir: Path, signer: RunSigner
) -> None:
    path = run_dir / "attestations" / "train.json"
    envelope = json.loads(path.read_bytes())
    told = b64decode(envelope["payload"])
    other = json.loads((run_dir / "attestations" / "data.json").read_bytes())

    swapped = {**envelope, "payload": other["payload"]}
    resign(run_dir, signer, "attestations/train.json", json.dumps(swapped).encode())
    key_id = signer.record.key_id
    assert faults_of(run_dir) == (f"attestations/train.json: not signed by key {key_id}",)

    resign(run_dir, signer, "attestations/train.json", told)
    assert faults_of(run_dir) == ("attestations/train.json: not a signed in-toto statement",)

    from governance.signing.statements import _envelope

    lie = json.loads(told)
    lie["subject"][0]["digest"]["sha256"] = "0" * 64
    resign(run_dir, signer, "attestations/train.json", _envelope(json.dumps(lie).encode(), signer))
    assert faults_of(run_dir) == (
        "attestations/train.json: 'checkpoints/last.safetensors' has another digest than in the "
        "manifest",
    )


def test_the_certified_pdf_is_a_copy_and_allows_no_change(
    run_dir: Path, signer: RunSigner, pair: KeyPair
) -> None:
    key = read_public_key(pair.public_key)
    report = (run_dir / "report.pdf").read_bytes()
    signed = (run_dir / "report-signed.pdf").read_bytes()

    assert report == small_pdf()
    assert signed.startswith(report)
    assert len(signed) > len(report)
    assert check_certified_pdf(signed, report, key) == []
    for appended in (b"\n", b"%", b"% more\n", bytes(100)):
        assert check_certified_pdf(signed + appended, report, key) == [
            "report-signed.pdf: the signature does not cover the entire file"
        ], appended
    for place in (report.index(b"/Pages"), len(report) + 40):
        changed = signed[:place] + bytes([signed[place] ^ 1]) + signed[place + 1 :]
        assert check_certified_pdf(changed, changed[: len(report)], key), place
    assert check_certified_pdf(report, report, key)
    assert check_certified_pdf(signed, report + b" ", key) == [
        "report-signed.pdf: not a copy of report.pdf"
    ]
    assert check_certified_pdf(b"", report, key)


def test_an_appended_update_behind_the_signature_is_refused(
    run_dir: Path, signer: RunSigner, pair: KeyPair, tmp_path: Path
) -> None:
    from io import BytesIO

    from pyhanko.pdf_utils.generic import pdf_name, pdf_string
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter

    report = (run_dir / "report.pdf").read_bytes()
    signed = (run_dir / "report-signed.pdf").read_bytes()
    writer = IncrementalPdfFileWriter(BytesIO(signed))
    writer.root[pdf_name("/Lang")] = pdf_string("en")
    writer.update_root()
    out = BytesIO()
    writer.write(out)

    faults = check_certified_pdf(out.getvalue(), report, read_public_key(pair.public_key))

    assert "report-signed.pdf: the signature does not cover the entire file" in faults

    resign(run_dir, signer, "report-signed.pdf", out.getvalue())
    assert "report-signed.pdf: the signature does not cover the entire file" in faults_of(run_dir)


def test_a_pdf_certified_with_another_key_is_named(
    run_dir: Path, signer: RunSigner, tmp_path: Path
) -> None:
    other = load_signer(str(make_key_pair(tmp_path / "other").private_key))
    report = (run_dir / "report.pdf").read_bytes()
    resign(run_dir, signer, "report-signed.pdf", certify_pdf(report, other))

    assert f"report-signed.pdf: signed by another key than {signer.record.key_id}" in faults_of(
        run_dir
    )


def relist_card(run_dir: Path, name: str, data: bytes) -> tuple[str, ...]:
    (run_dir / name).write_bytes(data)
    add_outputs(run_dir, [name])
    return faults_of(run_dir)


def test_a_card_or_page_that_tells_of_other_evidence_is_named(tmp_path: Path) -> None:
    run_dir = make_signed_run(tmp_path, None)
    manifest = read_manifest(run_dir)
    card = {
        "run_id": RUN_ID,
        "hashes": {
            "evidence_root": manifest.evidence_root,
            "journal_head": manifest.journal_head,
            "journal_events": manifest.journal_events,
            "previous_run": "e" * 64,
            "config": "0" * 64,
        },
    }
    page = f"{RUN_ID} {manifest.evidence_root} {manifest.journal_head}"

    assert relist_card(run_dir, "model_card.json", json.dumps(card).encode()) == ()
    assert relist_card(run_dir, "report.html", page.encode()) == ()
    lie = json.dumps(card).replace(manifest.evidence_root, "f" * 64)
    assert relist_card(run_dir, "model_card.json", lie.encode()) == (
        f"model_card.json: its evidence_root is '{'f' * 64}', manifest.json has "
        f"'{manifest.evidence_root}'",
    )
    assert relist_card(run_dir, "model_card.json", b"[]") == (
        "model_card.json: not a model card with its digests",
    )
    (run_dir / "model_card.json").write_bytes(json.dumps(card).encode())
    add_outputs(run_dir, ["model_card.json"])
    (fault,) = relist_card(run_dir, "report.html", page.replace(RUN_ID, "another").encode())
    assert fault == f"report.html: does not name the run of manifest.json, {RUN_ID}"


def test_no_private_key_material_is_in_any_file_of_the_run(run_dir: Path, pair: KeyPair) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    secret = load_pem_private_key(pair.private_key.read_bytes(), None).private_bytes_raw()  # type: ignore[union-attr]
    body = b"".join(pair.private_key.read_bytes().split(b"\n")[1:-2])

    for path in run_dir.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert secret not in data
            assert secret.hex().encode() not in data
            assert body not in data
            assert b"PRIVATE KEY" not in data


def test_the_record_says_unsigned_or_who_and_never_that_it_is_certain() -> None:
    assert SigningRecord().sentence == "unsigned"
    kept = SigningRecord(key_id="k", key={}, source="hsm")
    assert kept.sentence == "signed by key id k (key kept by hsm, identity not vouched for)"


def test_signing_twice_gives_the_same_manifest_signature(tmp_path: Path, signer: RunSigner) -> None:
    store = make_store(tmp_path, signer)
    close_evidence(
        store.run_dir,
        run_id=RUN_ID,
        tool_version="0.1.0",
        journal=store.journal,
        previous_run=None,
        now=NOW,
    )
    write_outputs(store.run_dir, {"model_card.md": b"card\n"}, signer)
    first = (store.run_dir / "manifest.sig").read_bytes()

    sign_manifest(store.run_dir, signer)

    assert (store.run_dir / "manifest.sig").read_bytes() == first


def test_a_whole_report_is_certified_and_keeps_its_own_bytes(
    tmp_path: Path, signer: RunSigner, pair: KeyPair
) -> None:
    from tests.stored_run.stored import write_run

    report = write_audit_report(load_evidence(write_run(tmp_path)))

    signed = certify_pdf(report, signer)

    assert check_certified_pdf(signed, report, read_public_key(pair.public_key)) == []
