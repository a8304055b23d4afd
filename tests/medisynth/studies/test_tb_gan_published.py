import math

import numpy as np
import pytest
from pydantic import ValidationError

from governance.records.errors import SettingsError
from medisynth import checkpoint
from medisynth.models.tb_gan import TbGan, TbGanSettings
from medisynth.studies.midl2023.tb_gan_published import (
    NOT_REPRODUCED,
    TbGanDeviations,
    TbGanPublished,
    TbGanPublishedSettings,
)
from tests.medisynth.models.tb_gan.tiny_tb_gan import STYLESWIN, TINY, Recorder, view

SMALL = {**TINY, **STYLESWIN, "schedule": ({"steps": 2},)}


def published(**changes):
    return TbGanPublishedSettings.model_validate({**SMALL, **changes})


def fitted(settings, kind=TbGanPublished):
    generator = kind(settings)
    return generator, generator.fit(view(16), view(6, "tuning"), Recorder().context())


def test_every_deviation_is_on_and_one_that_is_named_keeps_its_value():
    every, but_one = published(), published(deviations={"without_ema": False})

    assert set(every.deviations.switched_on()) == set(TbGanDeviations.model_fields)
    assert set(every.deviations.switched_on()) - set(but_one.deviations.switched_on()) == {
        "without_ema"
    }
    assert (every.in_effect().ema, but_one.in_effect().ema) == (0, every.ema)
    assert all(len(what) > 40 for what in every.deviations.switched_on().values())


def test_deviations_have_the_last_word_over_settings_and_parts_of_the_schedule():
    part = {"steps": 2, "learning_rate": 1e-2, "discriminator_learning_rate": 1e-2}
    settings = published(ema=0.5, spectral_norm=True, schedule=(part,)).in_effect()

    assert (settings.r1.gamma, settings.ema, settings.is_spectral) == (0, 0, False)
    assert (settings.apa.target, settings.clip_norm) == (0.95, math.inf)
    assert settings.rates_of(settings.schedule[0]) == (5e-5, 2e-4)


def test_without_any_deviation_it_is_the_built_in_generator():
    off = published(deviations=dict.fromkeys(TbGanDeviations.model_fields, False))
    one, _ = fitted(off)
    other, _ = fitted(off.in_effect(), TbGan)

    assert checkpoint.encode(one.state(), {}) == checkpoint.encode(other.state(), {})


def test_what_is_left_out_is_as_published():
    settings = TbGanPublishedSettings()

    assert (settings.size, settings.loss, settings.discriminator) == (256, "logistic", "wavelet")
    assert settings.widths == (512, 512, 512, 256, 128, 64, 32)
    assert settings.heads_of_levels == (16, 16, 16, 8, 4, 4, 4)
    assert TbGanPublished.image_size_px(settings) == 256


def test_settings_survive_json():
    for settings in (TbGanPublishedSettings(), published(deviations={"without_r1": False})):
        again = TbGanPublishedSettings.model_validate(settings.model_dump(mode="json"))
        assert again == settings


def test_it_trains_and_lists_its_deviations_and_repeats():
    (generator, report), (again, _) = fitted(published()), fitted(published())
    restored = TbGanPublished(published())
    restored.load_state(generator.state())
    images = [g.sample(3, Recorder().context()) for g in (generator, again, restored)]

    assert report.description["recipe"].startswith("published: ")
    for name in (*TbGanDeviations.model_fields, *NOT_REPRODUCED):
        assert name in report.description["recipe"]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


def test_settings_that_are_not_its_own_are_refused():
    with pytest.raises(SettingsError, match="expected TbGanPublishedSettings"):
        TbGanPublished(TbGanSettings())
    with pytest.raises(ValidationError, match=r"deviations.no_such_fault\n\s+Extra inputs"):
        published(deviations={"no_such_fault": True})
    with pytest.raises(ValidationError, match=r"recipe\n\s+Extra inputs"):
        published(recipe="published")
