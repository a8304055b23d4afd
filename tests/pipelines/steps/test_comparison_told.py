"""What training says of its images beside simple controls: on the console and in the journal."""

import io

import pytest

from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy
from governance.records.comparison import TuningComparison
from pipelines.config.model import load_config
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext
from pipelines.steps.s5_train import _tell_comparison
from tests.governance.checks.faults import comparison


@pytest.fixture
def context(tmp_path):
    store = EvidenceStore.create(tmp_path, "20261102T093000Z-abc", tool_version="test")
    console = Console(stream=io.StringIO())
    return RunContext(load_config(preset="smoke"), load_policy(), store, console, tmp_path)


def told(found, context):
    _tell_comparison(found, context)
    *_, event = context.store.journal.events()
    return context.console.stream.getvalue(), event


def test_images_that_controls_beat_are_warned_of_and_journalled(context):
    text, event = told(comparison(0.364, pca=0.229, blur=0.352), context)

    assert text.startswith("warning: The images are no better than simple controls")
    assert event.type == "compared with controls"
    assert event.body["kid"] == 0.364
    assert event.body["controls"] == {"pca": 0.229, "blur": 0.352}
    assert event.body["not_beaten"] == ["pca", "blur"]


def test_good_news_is_said_without_a_warning(context):
    text, event = told(comparison(0.082, pca=0.229, blur=0.352), context)

    assert text == (
        "The images are better than simple controls on the tuning images: "
        "KID 0.082, pca 0.229, blur 0.352.\n"
    )
    assert event.body["not_beaten"] == []


def test_where_nothing_was_compared_only_the_journal_says_why(context):
    text, event = told(TuningComparison(reason="no FID weights"), context)

    assert text == ""
    assert event.body["kid"] is None
    assert event.body["reason"] == "no FID weights"
