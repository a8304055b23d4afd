"""Checks of principle 7: the people who work with the model."""

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import check, judge, listed, not_evaluated
from governance.records.item import CheckResult, Observed
from governance.records.policy import Criterion
from governance.records.run import Figures
from governance.records.training import SampleSet

_NO_KIT = "this version has no command turing-test, which would make a blinded reader kit"


@check("P7-01", step="s6_evaluate")
def sample_sheets(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check for sheets of random, worst-scoring and nearest-neighbour samples."""
    figures = documents.need(Figures)
    texts = [f"{f.path} {f.title} {f.caption}".lower() for f in figures.figures]
    random = [text for text in texts if "random" in text and "synthetic" in text]
    faults = [] if random else ["no random sample sheet"]
    if random and not any("seed" in text for text in random):
        faults.append("the random sample sheet does not state its seed")
    if not any("nearest" in text for text in texts):
        faults.append("no sheet of nearest training images")
    method = "titles and captions of the figures"
    if not faults and not any("worst" in text for text in texts):
        return not_evaluated(
            "random and nearest-neighbour sheets are produced; the worst-scoring sheet is not "
            "implemented yet",
            method=method,
            source=Figures,
        )
    return judge(
        criterion,
        Observed(value=not faults),
        reason=listed(faults) or "random, worst-scoring and nearest-neighbour sheets are produced",
        method=method,
        source=Figures,
    )


@check("P7-02", step="s6_evaluate")
def reader_kit(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Always unavailable: a shuffled set of real and synthetic images with a sealed key."""
    documents.need(SampleSet)
    return not_evaluated(f"no reader kit: {_NO_KIT}", source=SampleSet)


@check("P7-03", step="s6_evaluate")
def reader_answers(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Always unavailable: accuracy and agreement of readers who answered a kit."""
    documents.need(SampleSet)
    return not_evaluated(f"no reader answers were given: {_NO_KIT}", source=SampleSet)
