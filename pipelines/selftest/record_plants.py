"""Plants in the record: files changed, labels swapped, criteria edited after freezing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from governance.evidence import verify_run as independent_verifier
from governance.evidence.folder import RunFolder
from governance.policy.load import with_criteria
from governance.records.files import sha256_file
from governance.records.policy import Policy
from governance.records.run import Plan
from governance.records.selftest import GuardAnswer
from governance.sealing.seal import read_seal
from governance.verify.folder import verify_run
from pipelines.selftest.bench import (
    INTEGRITY,
    LONGER,
    Answers,
    Bench,
    Plant,
    judge_folder,
    silent,
    stopped_by,
)

VERIFY, SECOND_VERIFIER = "verify", "verify_run.py"
_SEAL, _FROZEN = "G032", "G030"  # codes of a seal, and of evidence, that contradicts itself
_LENIENT = {"P6-04": 1.0}  # every image may be a copy


def tampered_record(bench: Bench, is_planted: bool) -> Answers:
    """Plant: the verdict of one item is rewritten in a closed run folder."""
    folder = bench.copied_run(bench.control)
    if is_planted:
        _edit(folder / "records" / "P4-13.json", lambda record: record | {"status": "passed"})
    found = verify_run(folder, is_ended=False)  # a small run has no card and no report
    if found.is_intact:
        return (silent(VERIFY, "intact"),)
    return (
        GuardAnswer(
            guard=VERIFY,
            status="names it",
            is_alarm=True,
            exit_code=INTEGRITY,
            sentence=found.faults[0],
        ),
    )


def hidden_file(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a file in a hidden folder, and an empty folder, beside the files of a closed run."""
    folder = bench.copied_run(bench.control)
    if is_planted:
        (folder / ".git").mkdir()
        (folder / ".git" / "x").write_text("x", "ascii")
        (folder / "empty").mkdir()
    by_script: list[str] = []
    independent_verifier.find_files(folder, by_script)
    answers = []
    for guard, faults in (
        (VERIFY, verify_run(folder, is_ended=False).faults),
        (SECOND_VERIFIER, tuple(by_script)),
    ):
        named = all(any(name in fault for fault in faults) for name in (".git", "empty"))
        answers.append(
            GuardAnswer(
                guard=guard,
                status="names both" if named else "names not both",
                is_alarm=named,
                exit_code=INTEGRITY if named else None,
                sentence=faults[0] if faults else "",
            )
        )
    return tuple(answers)


def document_changed(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a document is rewritten after a step recorded it, before the run closes."""
    if not is_planted:
        return bench.of_control("P2-07")
    run = bench.new_run()
    run.prepare()
    _edit(
        run.run_dir / "data" / "duplicates.json", lambda found: found | {"n_pairs": 0, "method": ""}
    )
    run.close()
    return run.judge("P2-07")


def sealed_label_swap(bench: Bench, is_planted: bool) -> Answers:
    """Plant: two test images' labels are swapped between sealing and opening."""
    folder = bench.copied_run(bench.control)
    if is_planted:
        _edit(folder / "data" / "seal_leaves.json", _with_labels_swapped)
    return stopped_by(_SEAL, lambda: read_seal(folder))


def _with_labels_swapped(document: dict[str, Any]) -> dict[str, Any]:
    first, *rest = document["leaves"]
    other = next(leaf for leaf in rest if leaf["brain_plane"] != first["brain_plane"])
    first["brain_plane"], other["brain_plane"] = other["brain_plane"], first["brain_plane"]
    return document


def edited_criterion(bench: Bench, is_planted: bool) -> Answers:
    """Plant: the run is judged by a limit that was raised after the plan was frozen."""
    context = bench.control.context
    policy = with_criteria(context.policy, _LENIENT) if is_planted else context.policy
    judged_by = replace(context, policy=policy)
    return stopped_by(_FROZEN, lambda: judge_folder(bench.control.folder, judged_by, "P6-04"))


def rewritten_plan(bench: Bench, is_planted: bool) -> Answers:
    """Plant: the frozen plan is rewritten with a new limit after the test set was opened."""
    context = bench.control.context
    copy = bench.copied_run(bench.control)
    digests = dict(bench.control.folder.digests)
    if is_planted:
        lenient = with_criteria(context.policy, _LENIENT)
        _edit(copy / Plan.PATH, lambda plan: plan | {"policy": _plain(lenient)})
        digests[Plan.PATH] = sha256_file(copy / Plan.PATH)
        context = replace(context, policy=lenient)
    return judge_folder(RunFolder(copy, digests), context, "P8-01")


def _plain(policy: Policy) -> dict[str, Any]:
    return policy.model_dump(mode="json")


def _edit(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change a document without recording it, as a text editor would."""
    path.write_text(json.dumps(change(json.loads(path.read_bytes()))), "utf-8")


RECORD_PLANTS = (
    Plant(
        "sealed-label-swap",
        "label",
        "two test images' plane labels exchanged between sealing and opening",
        (_SEAL,),
        INTEGRITY,
        sealed_label_swap,
    ),
    Plant(
        "tampered-record",
        "record",
        'an item\'s verdict rewritten to "passed" in a finished run',
        (VERIFY,),
        INTEGRITY,
        tampered_record,
    ),
    Plant(
        "hidden-file",
        "record",
        "a file in a hidden folder and an empty folder added to a finished run",
        (VERIFY, SECOND_VERIFIER),
        INTEGRITY,
        hidden_file,
    ),
    Plant(
        "document-changed",
        "record",
        "a result of an earlier step rewritten before the run closes",
        ("P2-07",),
        INTEGRITY,
        document_changed,
        LONGER,
    ),
    Plant(
        "edited-criterion",
        "criterion",
        "a limit raised after the plan was frozen",
        (_FROZEN,),
        INTEGRITY,
        edited_criterion,
    ),
    Plant(
        "rewritten-plan",
        "criterion",
        "the frozen plan rewritten with a higher limit after the test set was opened",
        ("P8-01",),
        INTEGRITY,
        rewritten_plan,
    ),
)
