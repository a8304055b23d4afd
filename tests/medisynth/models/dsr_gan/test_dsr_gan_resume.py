import hashlib

import numpy as np
import pytest
import torch

from governance.records.errors import TrainingError, WeightsError
from governance.records.training import PretrainedComponent
from medisynth import checkpoint
from medisynth.data.reading.views import ImageView
from medisynth.generator import StageState, StoppedError, TrainingContext
from medisynth.models.dsr_gan import DsrGan, DsrGanSettings
from medisynth.models.dsr_gan.diffusion import DiffusionStage, new_network
from medisynth.models.dsr_gan.fitted import fit_before_training
from medisynth.models.dsr_gan.super_resolution import super_resolution_stage
from medisynth.models.enlarging.candidates import Candidates
from medisynth.studies.midl2023.dsr_gan_published import DsrGanPublishedSettings, fitting

TINY = {
    "precision": "fp32",
    "selection_every": 2,
    "diffusion": {
        "size": 8,
        "unshuffle": 1,
        "channels": (8, 16),
        "steps": 8,
        "warm_up_steps": 2,
        "batch_size": 4,
        "sampler_steps": 4,
    },
    "super_resolution": {
        "to": 16,
        "channels": 8,
        "blocks": 1,
        "discriminator_channels": 8,
        "crop": 16,
        "steps": 4,
        "batch_size": 4,
    },
    "score_images": 4,
}
PUBLISHED = TINY | {
    "diffusion": {
        **TINY["diffusion"],
        "channels": (8, 8),
        "warm_up_steps": 0,
    },
}


def changed(stage, base=TINY, **values):
    return DsrGanSettings.model_validate(base | {stage: base[stage] | values})


def view(n, partition="training", size=16):
    pixels = np.random.default_rng((0, n)).integers(0, 256, (n, size, size), dtype=np.uint8)
    ids = tuple(str(i) for i in range(n))
    planes = tuple("AB"[i % 2] for i in range(n))
    return ImageView(partition, pixels, ids, ids, planes, ("",) * n)


class States:
    """States as files hold them: encoded, so that nothing is shared with the running stage."""

    def __init__(self):
        self.kept = {}

    def latest(self, stage):
        if stage not in self.kept:
            return None
        step, data, facts = self.kept[stage]
        return StageState(stage, step, checkpoint.decode(data)[0], facts)

    def commit(self, state):
        data = checkpoint.encode(state.tensors, {})
        self.kept[state.stage] = (state.step, data, state.facts)


class Run:
    def __init__(self, stop_after=10**9, states=None, **more):
        self.progressed, self.logged, self.previews = [], [], []
        self.context = TrainingContext(
            seed=0,
            compute_device="cpu",
            log=lambda stage, step, values: self.logged.append((stage, step, dict(values))),
            progress=lambda stage, done, total: self.progressed.append((stage, done, total)),
            should_stop=lambda: len(self.progressed) >= stop_after,
            states=states,
            commit_every=2,
            **more,
        )

    def fit(self, settings=TINY):
        generator = DsrGan(DsrGanSettings.model_validate(settings))
        return generator, generator.fit(view(12), view(5, "tuning"), self.context)


def published_stages(settings):
    settings = DsrGanPublishedSettings.model_validate(settings).in_effect()
    context, training, tuning = Run().context, view(12), view(5, "tuning")
    fitted = fitting.fit_parts(settings, training, context)
    return {
        "diffusion": fitting.diffusion_stage(settings, training, tuning, context, "fp32", fitted),
        "super-resolution": fitting.enlarging_stage(
            settings, settings.super_resolution.to, training, tuning, context, "fp32"
        ),
    }


def stages(settings):
    settings = DsrGanSettings.model_validate(settings)
    context, training, tuning = Run().context, view(12), view(5, "tuning")
    fitted = fit_before_training(training, settings, 0, "cpu")
    return {
        "diffusion": DiffusionStage(settings, training, tuning, context, "fp32", fitted),
        "super-resolution": super_resolution_stage(
            settings, settings.super_resolution.to, training, tuning, context, "fp32"
        ),
    }


@pytest.mark.parametrize(
    ("settings", "built"),
    [(TINY, stages), (PUBLISHED, published_stages)],
    ids=["built-in", "published"],
)
@pytest.mark.parametrize("name", ["diffusion", "super-resolution"])
def test_four_steps_are_two_steps_saved_and_loaded_and_two_steps_bit_by_bit(settings, built, name):
    longer = {key: settings[key] | {"steps": 20} for key in ("diffusion", "super_resolution")}
    whole, first, second = (built(settings | longer)[name] for _ in range(3))

    def advance(stage, steps):
        return [(stage.step(step), stage.evaluate(step + 1)) for step in steps]

    numbers = advance(whole, range(4))
    advance(first, range(2))
    tensors, facts = first.state()
    second.load_state(checkpoint.decode(checkpoint.encode(tensors, {}))[0], facts)
    later = advance(second, range(2, 4))

    assert later == numbers[2:]
    expected, found = whole.state(), second.state()
    assert checkpoint.encode(expected[0], {}) == checkpoint.encode(found[0], {})
    assert expected[1] == found[1]
    assert np.array_equal(whole.preview(), second.preview())
    kinds = {key.split("/")[0] for key in expected[0]}
    assert kinds == {"module", "optimiser"} | ({"candidate"} if name == "diffusion" else set())


@pytest.mark.malformed("checkpoint")
def test_a_state_of_other_sizes_is_refused_by_name():
    tensors, facts = stages(TINY)["diffusion"].state()
    wider = stages(changed("diffusion", channels=(8, 24)))["diffusion"]

    with pytest.raises(WeightsError, match="module/"):
        wider.load_state(tensors, facts)


@pytest.fixture(scope="module")
def straight():
    generator, report = Run().fit()
    return checkpoint.encode(generator.state(), {}), report


@pytest.mark.parametrize("stop_after", [1, 5, 8, 10])
def test_stopped_anywhere_and_fitted_again_gives_the_same_generator(straight, stop_after):
    states = States()
    with pytest.raises(StoppedError):
        Run(stop_after, states).fit()

    generator, report = Run(states=states).fit()

    assert checkpoint.encode(generator.state(), {}) == straight[0]
    assert report.selection.candidates == straight[1].selection.candidates
    assert report.selection.chosen_step == straight[1].selection.chosen_step


def test_a_finished_stage_is_loaded_and_not_trained_again(straight):
    states = States()
    with pytest.raises(StoppedError):
        Run(10, states).fit()
    run = Run(states=states)
    run.fit()

    assert [done for stage, done, _ in run.progressed if stage == "diffusion"] == [8]


def test_precision_of_a_begun_stage_is_not_timed_again():
    states = States()
    with pytest.raises(StoppedError):
        Run(2, states).fit(TINY | {"precision": "bf16"})

    _, report = Run(states=states).fit(TINY | {"precision": "auto"})

    assert report.stages[0].precision == "bf16"


@pytest.mark.parametrize("stage", ["diffusion", "super_resolution"])
def test_micro_batches_make_the_update_of_the_whole_batch(stage):
    name = stage.replace("_", "-")
    one, parts = (stages(changed(stage, accumulate=n))[name] for n in (1, 2))

    for step in range(3):
        assert parts.step(step) == pytest.approx(one.step(step), rel=2e-3, abs=2e-4)
    expected, found = one.state()[0], parts.state()[0]
    for key in (key for key in expected if key.startswith("module/") and "weight" in key):
        # Adam takes the sign of a gradient that is all but zero from rounding.
        assert (found[key] - expected[key]).norm() < 0.01 * expected[key].norm() + 1e-3, key


def test_candidates_keep_the_newest_few_whatever_their_loss():
    kept = Candidates(2)
    network = torch.nn.Linear(1, 1)
    for step, score in enumerate([0.5, 0.2, 0.9, 0.1, 0.3, 0.4], start=1):
        kept.add(step, score, network)

    assert sorted(kept.weights) == [5, 6]
    assert kept.best_step == 5
    assert len(kept.scores) == 6


def test_whole_images_of_every_kept_candidate_are_scored_and_the_lowest_is_chosen(straight):
    seen = []

    def score(images):
        seen.append(images)
        return [3.0, 1.0, 2.0, 4.0][len(seen) - 1]

    generator, report = Run(score=score, score_name="KID").fit()

    kept = [one.step for one in straight[1].selection.candidates]
    assert len(kept) == 3
    assert kept[-1] == 8
    scores = [(one.step, one.score) for one in report.selection.candidates]
    assert scores == list(zip(kept, [3.0, 1.0, 2.0], strict=True))
    assert report.selection.chosen_step == kept[1]
    assert report.selection.criterion == "lowest KID on the tuning view"
    assert "among the newest 3 of 4 candidates" in report.description["checkpoint choice"]
    assert all(images.shape == (4, 16, 16) for images in seen)
    assert not np.array_equal(seen[0], seen[1])
    # The images it was chosen by are not those that are drawn afterwards.
    later = generator.sample(4, Run().context)
    assert not any(np.array_equal(later, images) for images in seen)


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(TrainingError, match="KID is nan"):
        Run(score=lambda images: float("nan"), score_name="KID").fit()


def test_previews_are_a_few_images_of_every_stage():
    shown = []
    Run(preview=lambda *told: shown.append(told), preview_every=4).fit()

    assert [(stage, step, images.shape) for stage, step, images in shown] == [
        ("diffusion", 4, (8, 8, 8)),
        ("diffusion", 8, (8, 8, 8)),
        ("super-resolution", 4, (5, 16, 16)),
    ]
    assert all(images.dtype == np.uint8 and images.std() > 1 for _, _, images in shown)


def test_previews_change_nothing(straight):
    generator, _ = Run(preview=lambda *told: None, preview_every=1).fit()

    assert checkpoint.encode(generator.state(), {}) == straight[0]


def test_a_super_resolution_that_makes_one_image_of_all_is_stopped():
    stage = stages(TINY)["super-resolution"]

    class Same(torch.nn.Module):
        def n_noise(self, height, width):
            return 1

        def forward(self, small, noise):
            return torch.full((len(small), 1, 16, 16), 0.5)

    stage.preview()
    stage._averaged.module = Same()
    stage._averaged.n_averaged.fill_(3)

    with pytest.raises(TrainingError, match="super-resolution, step 3: the samples have collapsed"):
        stage.preview()


def pretrained(tmp_path, tensors):
    data = checkpoint.encode(tensors, {})
    path = tmp_path / "given.safetensors"
    path.write_bytes(data)
    return {
        "path": str(path),
        "sha256": hashlib.sha256(data).hexdigest(),
        "source": "a run on other data",
        "licence": "Apache-2.0",
        "training_data": "phantoms",
    }


def test_training_starts_from_a_pretrained_network_and_records_it(tmp_path):
    other = new_network(DsrGanSettings.model_validate(TINY), 77, (0, 0))
    given = pretrained(tmp_path, other.state_dict())
    settings = DsrGanSettings.model_validate(TINY | {"pretrained": given})

    stage = stages(settings)["diffusion"]
    generator = DsrGan(settings)
    report = generator.fit(view(12), view(5, "tuning"), Run().context)

    own = stage.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in other.state_dict().items())
    assert DsrGan.pretrained_files(settings) == (given["path"],)
    assert DsrGan.pretrained_files(DsrGanSettings()) == ()
    assert report.pretrained == (
        PretrainedComponent(
            name="diffusion network",
            used_for="start of its training",
            source="a run on other data",
            licence="Apache-2.0",
            sha256=given["sha256"],
            training_data="phantoms",
            overlap="unknown",
            declared_by="the configuration",
        ),
    )
    assert given["sha256"] in report.description["pre-training"]


def test_a_whole_checkpoint_can_be_started_from(tmp_path, straight):
    tensors, _ = checkpoint.decode(straight[0])
    settings = TINY | {"pretrained": pretrained(tmp_path, tensors)}

    own = stages(settings)["diffusion"].network.state_dict()

    assert torch.equal(own["stem.weight"], tensors["diffusion.network.stem.weight"])
    assert not own["labels.tables.0.weight"].any()  # of other data: not taken over


@pytest.mark.malformed("checkpoint")
def test_pretrained_weights_of_another_shape_name_the_first_tensor(tmp_path):
    wider = new_network(changed("diffusion", channels=(16, 16)), 0, (0, 0))
    settings = TINY | {"pretrained": pretrained(tmp_path, wider.state_dict())}

    with pytest.raises(
        WeightsError, match=r"given.safetensors: tensor 'augmentation_in.weight': expected shape"
    ):
        stages(settings)


@pytest.mark.malformed("checkpoint")
def test_pretrained_weights_of_another_digest_are_refused(tmp_path):
    other = new_network(DsrGanSettings.model_validate(TINY), 77, (0, 0))
    given = pretrained(tmp_path, other.state_dict()) | {"sha256": "0" * 64}

    with pytest.raises(WeightsError, match="expected sha256:0000"):
        stages(TINY | {"pretrained": given})
