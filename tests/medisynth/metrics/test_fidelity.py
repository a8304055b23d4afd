import numpy as np
import pytest

from governance.records.evaluation import MetricResult
from medisynth.metrics.features import RecordedExtractor
from medisynth.metrics.fidelity import evaluate_fidelity, not_evaluated_fidelity

D = 32
EXTRACTOR = RecordedExtractor("pixels", "ab" * 32, D, "none")
NAMES = ["fid", "kid", "fd_ratio", "precision", "recall", "density", "coverage"]


def _draw(n: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, size=(n, D))


def _people(n: int, images_each: int = 1) -> list[str]:
    return [f"p{index // images_each}" for index in range(n)]


def _evaluate(synthetic, *, test=None, training=None, n_bootstrap=100, **options):
    test = _draw(80, 1) if test is None else test
    training = _draw(200, 2) if training is None else training
    metrics = evaluate_fidelity(
        test,
        _people(len(test)),
        training,
        _people(len(training)),
        synthetic,
        EXTRACTOR,
        n_bootstrap=n_bootstrap,
        seed=5,
        **options,
    )
    assert [metric.id.partition("-")[0] for metric in metrics] == NAMES
    return {metric.id.partition("-")[0]: metric for metric in metrics}


def test_a_metric_is_read_back_from_its_json_as_it_was():
    for metric in (*_evaluate(_draw(80, 3)).values(), *not_evaluated_fidelity("no weights")):
        assert MetricResult.model_validate_json(metric.model_dump_json()) == metric


def test_images_of_the_real_distribution_reach_the_floor():
    found = _evaluate(_draw(80, 3))

    assert found["fd_ratio"].value == pytest.approx(1, abs=0.25)
    for metric in found.values():
        assert metric.status == "recorded"
        low, high = metric.ci95
        assert low <= metric.value <= high
        assert low <= metric.floor <= high


def test_worse_images_score_worse_in_every_way_and_their_interval_leaves_the_floor():
    found = _evaluate(_draw(80, 3, shift=0.6))

    for name in ("fid", "kid", "fd_ratio"):
        assert found[name].ci95[0] > found[name].floor
    for name in ("precision", "coverage"):
        assert found[name].value < found[name].floor


def test_collapse_to_few_images_costs_recall_and_coverage_but_not_precision():
    one_mode = _draw(80, 3, scale=0.15)

    found = _evaluate(one_mode)

    assert found["precision"].value == 1
    assert found["recall"].value < 0.1
    assert found["density"].value > 2 * found["density"].floor


def test_a_constant_synthetic_set_is_legal_and_scores_badly():
    found = _evaluate(np.full((80, D), 4.0))

    assert found["fd_ratio"].value > 10
    assert found["precision"].value == found["recall"].value == 0
    assert all(metric.status == "recorded" for metric in found.values())


def test_a_share_of_none_has_a_one_sided_bound_and_never_zero_to_zero():
    found = _evaluate(np.full((80, D), 4.0))

    for name in ("precision", "recall", "density", "coverage"):
        assert found[name].value == found[name].ci95[0] == 0
        assert found[name].ci95[1] > 0
        assert "rule of three" in found[name].interval_method
    assert found["precision"].ci95[1] == pytest.approx(1 - 0.05 ** (1 / 80))
    assert found["kid"].interval_method == ""


def test_the_id_carries_extractor_features_neighbours_and_both_n():
    assert _evaluate(_draw(80, 3))["fid"].id == "fid-pixels-d32-n80"
    found = _evaluate(_draw(40, 3))
    assert found["kid"].id == "kid-pixels-d32-n80x40"
    assert found["precision"].id == "precision-pixels-d32-k5-n80x40"


def test_every_number_says_what_it_was_made_with():
    metric = _evaluate(_draw(60, 3), subgroup="machine=E6")["kid"]

    assert (metric.n_real, metric.n_synthetic, metric.n_patients) == (80, 60, 80)
    assert (metric.extractor, metric.n_features) == ("pixels", D)
    assert metric.extractor_sha256 == "ab" * 32
    assert (metric.seed, metric.subgroup) == (5, "machine=E6")
    assert metric.partition == "held-out test set"


def test_fid_warns_of_its_bias_below_twice_as_many_images_as_features():
    few, many = _evaluate(_draw(60, 3)), _evaluate(_draw(80, 3))

    assert "lead with KID" in few["fid"].reason
    assert few["kid"].reason == ""
    assert many["fid"].reason == ""


def test_fewer_training_than_synthetic_images_keep_the_floor_comparable():
    found = _evaluate(_draw(80, 3), training=_draw(50, 2))

    assert found["kid"].n_synthetic == 50
    assert "50 of 80 synthetic images used" in found["kid"].reason


def test_without_training_images_there_is_a_value_but_no_floor():
    found = _evaluate(_draw(80, 3), training=np.zeros((0, D)))

    assert found["kid"].value is not None
    assert found["kid"].floor is None
    assert "no floor" in found["kid"].reason
    assert found["fd_ratio"].status == "not evaluated"


@pytest.mark.parametrize(
    ("synthetic", "test", "reason"),
    [
        (_draw(1, 3), None, "needs 2 images"),
        (np.zeros((0, D)), None, "needs 2 images"),
        (_draw(80, 3), _draw(1, 1), "needs 2 images"),
        (np.full((80, D), np.inf), None, "not finite"),
        (_draw(80, 3), np.ones((80, D)), "cannot be a reference"),
    ],
)
def test_sets_without_an_answer_are_not_evaluated_with_the_reason(synthetic, test, reason):
    for metric in _evaluate(synthetic, test=test).values():
        assert metric.status == "not evaluated"
        assert metric.value is None
        assert reason in metric.reason


def test_five_images_are_too_few_for_neighbourhoods_but_not_for_kid():
    found = _evaluate(_draw(5, 3))

    assert found["kid"].status == "recorded"
    assert found["recall"].status == "not evaluated"
    assert "6 images" in found["recall"].reason


def test_few_patients_give_no_interval_and_say_so():
    found = _evaluate(_draw(80, 3), test=_draw(9, 1))

    assert found["kid"].ci95 is None
    assert "9 patients" in found["kid"].reason


def test_no_resamples_asked_for_give_values_alone_without_a_word():
    found = _evaluate(_draw(80, 3), n_bootstrap=0)["kid"]

    assert found.ci95 is None
    assert found.reason == ""


def test_too_little_time_for_resampling_is_said_and_decided_without_a_clock():
    found = _evaluate(_draw(80, 3), max_seconds=0.001)["kid"]

    assert found.ci95 is None
    assert "no interval" in found.reason


def test_the_same_seed_gives_the_same_numbers():
    assert _evaluate(_draw(80, 3)) == _evaluate(_draw(80, 3))


def test_patients_with_many_alike_images_widen_the_interval():
    rng = np.random.default_rng(0)
    test = np.repeat(rng.normal(size=(20, D)), 5, axis=0) + rng.normal(0, 0.01, size=(100, D))
    arguments = (_draw(200, 2), _people(200), _draw(100, 3), EXTRACTOR)

    def width(people):
        kid = evaluate_fidelity(test, people, *arguments, n_bootstrap=200, seed=1)[1]
        return kid.ci95[1] - kid.ci95[0]

    assert width(_people(100, images_each=5)) > 1.5 * width(_people(100))


def test_all_metrics_are_there_when_nothing_was_evaluated():
    metrics = not_evaluated_fidelity("no weights")

    assert [metric.id.partition("-")[0] for metric in metrics] == NAMES
    assert {(m.status, m.value, m.reason) for m in metrics} == {
        ("not evaluated", None, "no weights")
    }


def test_patients_must_match_images():
    with pytest.raises(ValueError, match="needs its patient"):
        evaluate_fidelity(
            _draw(4, 0),
            ["a"],
            _draw(4, 1),
            _people(4),
            _draw(4, 2),
            EXTRACTOR,
            n_bootstrap=0,
            seed=0,
        )
