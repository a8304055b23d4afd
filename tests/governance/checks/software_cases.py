"""Ways to spoil a good run's intended use and software evidence, and what its items then say."""

from typing import Any

from governance.records.base import ItemStatus
from governance.records.run import Package
from governance.records.software import Vulnerability
from tests.governance.checks.faults import (
    FAILED,
    NOT_EVALUATED,
    PASSED,
    B,
    C,
    Change,
    both,
    but,
    declaration,
    entry,
    metric,
    with_coverage,
    without,
)


def scoped(**fields: Any) -> Change:
    """Another declared scope."""
    return but("declarations", declarations=(declaration(scope=fields),))


def images(**counts: tuple[str, ...]) -> Change:
    """Levels of plane, brain_plane and machine; two images a patient, 20 patients each."""
    return with_coverage({name: dict.fromkeys(found, (10, 10)) for name, found in counts.items()})


def brain_only(*names: str) -> Change:
    """A scope of brain planes, and images of the fetal brain alone."""
    n = 10 * len(names)
    of_planes = dict.fromkeys(names, (10, 10))
    seen = {"plane": {"Fetal brain": (n, n)}, "brain_plane": of_planes, "machine": {"E6": (n, n)}}
    return both(with_coverage(seen), scoped(planes=("Trans-thalamic",)))


def trained_from(**fields: Any) -> Change:
    """Training that started from weights made by others, of photographs."""
    other = {"name": "other network", "sha256": C, "training_data": "photographs"}
    declared = {"declared_by": "the configuration", "overlap": "none known"}
    component = entry("evaluation", "pretrained", **(other | declared | fields))
    return but("training", pretrained=(component,))


def vulnerable(**changes: Any) -> Change:
    """A scan that found one vulnerability, of a severity that it does not give."""
    fields = {"package": "numpy", "version": "2.0", "id": "PYSEC-1", "fixed_in": ("2.1",)}
    return but("vulnerabilities", vulnerabilities=(Vulnerability.model_validate(fields | changes),))


def scanned(*versions: str) -> Change:
    return but(
        "vulnerabilities", packages=tuple(Package(name="numpy", version=v) for v in versions)
    )


def malformed(**kinds: tuple[int, int]) -> Change:
    """Tests of malformed input: kind -> passed, failed; 9 passed of those not named."""
    counts = dict.fromkeys(("checkpoint", "config", "csv", "png"), (9, 0)) | kinds
    found = tuple(
        entry("tests", "malformed", kind=kind, n_passed=passed, n_failed=failed)
        for kind, (passed, failed) in counts.items()
    )
    return but("tests", malformed=found)


def apart(relative: float) -> Change:
    """A repeat that came to another state, by this much."""
    return but(
        "repeat",
        repeated_sha256=B,
        largest_difference=0.5,
        largest_at="w",
        relative_difference=relative,
    )


SOFTWARE_CASES: list[tuple[str, Change, ItemStatus, str]] = [
    ("P1-01", without("declarations"), NOT_EVALUATED, "names no declarations file"),
    ("P1-01", but("declarations", declarations=()), NOT_EVALUATED, "nobody declared it"),
    (
        "P1-01",
        but("declarations", declarations=(declaration(owner_name="TODO"),)),
        NOT_EVALUATED,
        "owner_name is a placeholder",
    ),
    (
        "P1-01",
        but("declarations", declarations=(declaration(scope=None),)),
        NOT_EVALUATED,
        "P1-H1 names no scope",
    ),
    ("P1-01", scoped(planes=("Fetal femur",)), FAILED, "plane Fetal brain"),
    ("P1-01", scoped(machines=("e6",)), FAILED, "outside the declared intended use: machine S10"),
    ("P1-01", scoped(image_size_px=(64, 256)), FAILED, "image size 32 px (declared: 64 to 256"),
    ("P1-01", scoped(output_roles=("education",)), FAILED, "output role research"),
    ("P1-01", but("run", output_role=""), NOT_EVALUATED, "not known of this run: output role"),
    ("P1-01", without("training"), NOT_EVALUATED, "nothing was trained"),
    (
        "P1-01",
        images(plane=("Fetal brain", "Fetal femur"), machine=("E6",)),
        FAILED,
        "plane Fetal femur",
    ),
    (
        "P1-01",
        images(plane=("Fetal brain",), machine=("E6", "not recorded")),
        NOT_EVALUATED,
        "machine of 40 images",
    ),
    ("P1-01", brain_only("Trans-thalamic"), PASSED, "2 planes, 1 machine, 32 px, research"),
    ("P1-01", brain_only("Trans-thalamic", "Other"), FAILED, "plane Other"),
    ("P1-01", brain_only("not recorded"), FAILED, "plane Fetal brain"),
    (
        "P1-01",
        brain_only("Trans-thalamic", "not recorded"),
        NOT_EVALUATED,
        "brain plane of 40 images",
    ),
    ("P2-03", without("bill_of_materials"), NOT_EVALUATED, "no bill of materials was written"),
    ("P2-03", but("bill_of_materials", faults=("numpy 2.0 is not listed",)), FAILED, "numpy 2.0"),
    (
        "P2-04",
        without("vulnerabilities"),
        NOT_EVALUATED,
        "there is no database of them to scan with",
    ),
    ("P2-04", scanned("2.1"), NOT_EVALUATED, "numpy 2.1 scanned, 2.0 installed"),
    ("P2-04", scanned(), NOT_EVALUATED, "numpy not scanned, 2.0 installed"),
    ("P2-04", scanned("2"), PASSED, "1 package scanned"),
    ("P2-04", scanned("two"), NOT_EVALUATED, "numpy two scanned, 2.0 installed"),
    ("P2-04", scanned("2.0+cpu"), PASSED, "1 package scanned, no high or critical one"),
    (
        "P2-04",
        but("environment", packages=(Package(name="attrs", version="1"),)),
        NOT_EVALUATED,
        "attrs not scanned, 1 installed, numpy 2.0 scanned, not installed",
    ),
    (
        "P2-04",
        both(scanned(), but("vulnerabilities", skipped=(("numpy", "not found"),))),
        NOT_EVALUATED,
        "none found, but the scan passed over numpy",
    ),
    ("P2-04", vulnerable(), FAILED, "numpy 2.0 PYSEC-1 (no severity given, fixed in 2.1)"),
    ("P2-04", vulnerable(severity="critical"), FAILED, "PYSEC-1 (critical, fixed in 2.1)"),
    ("P2-04", vulnerable(severity="medium"), PASSED, "1 of low or medium severity"),
    ("P2-04", vulnerable(accepted="unused"), PASSED, "1 accepted by a person: PYSEC-1 (unused)"),
    *(
        case
        for item_id in ("P2-05", "P2-10")
        for case in (
            (item_id, without("tests"), NOT_EVALUATED, "run make test on this commit first"),
            (item_id, but("run", code_clean=False), NOT_EVALUATED, "uncommitted changes, so"),
            (item_id, but("run", code_commit=None), NOT_EVALUATED, "not run from a git"),
            (item_id, but("run", code_commit="2" * 40), NOT_EVALUATED, "of another commit"),
            (item_id, but("tests", clean=False), NOT_EVALUATED, "ran on a tree with uncommit"),
            (item_id, but("tests", n_passed=0), NOT_EVALUATED, "no test was run"),
        )
    ),
    ("P2-05", but("tests", n_failed=1), FAILED, "3,000 passed, 1 failed, 0 errors"),
    ("P2-05", but("tests", n_errors=1), FAILED, "1 error,"),
    ("P2-05", but("tests", exit_status=1), FAILED, "ended with exit status 1"),
    ("P2-10", malformed(csv=(9, 1)), FAILED, "not refused as they should be: csv (1)"),
    ("P2-10", malformed(csv=(0, 0)), NOT_EVALUATED, "no test of malformed input was run for: csv"),
    ("P2-10", malformed(csv=(0, 1)), FAILED, "csv (1)"),
    ("P2-10", but("tests", malformed=()), NOT_EVALUATED, "for: csv, png, config, checkpoint"),
    ("P2-11", without("trace"), NOT_EVALUATED, "the evidence step did not run to its end"),
    (
        "P2-11",
        but("trace", broken=("P4-01 to data/split.json: there is no such file on record",)),
        FAILED,
        "P4-01 to data/split.json",
    ),
    ("P2-06", without("repeat"), NOT_EVALUATED, "the training step did not run to its end"),
    ("P2-06", but("repeat", problem="repeat_steps is 0"), NOT_EVALUATED, "repeat_steps is 0"),
    ("P2-06", but("repeat", repeated_sha256=None), NOT_EVALUATED, "not on record"),
    ("P2-06", but("repeat", repeated_sha256=B), FAILED, "cannot be compared number by number"),
    ("P2-06", apart(2e-3), FAILED, "relative difference 0.002, largest 0.5 in w"),
    ("P2-06", apart(1e-4), PASSED, "10 steps of diffusion on cpu: not equal bit by bit"),
    ("P4-09", trained_from(), PASSED, "photographs (declared by the configuration)"),
    ("P4-09", trained_from(overlap="known"), FAILED, "images of this data set: other network"),
    ("P4-09", trained_from(overlap="unknown"), NOT_EVALUATED, "is not declared: other network"),
    ("P4-09", trained_from(declared_by=""), NOT_EVALUATED, "other network"),
    ("P4-09", trained_from(training_data=" "), NOT_EVALUATED, "other network"),
    (
        "P4-09",
        but("evaluation", pretrained=()),
        NOT_EVALUATED,
        "inception_pool3",
    ),
    ("P4-09", but("evaluation", metrics=(), pretrained=()), PASSED, "no weights made by"),
    (
        "P4-09",
        but("evaluation", metrics=(metric("kid", extractor_sha256=C),)),
        NOT_EVALUATED,
        "inception_pool3",
    ),
]
