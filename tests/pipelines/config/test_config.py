import os
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from governance.records.errors import ConfigError
from pipelines.cli.app import app
from pipelines.config.model import (
    RunConfig,
    changed_config,
    flat_config,
    load_config,
    preset_names,
    read_config,
)
from tests.places import ROOT

DOCS = ROOT / "docs"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, "utf-8")
    return path


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += keys(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def test_every_preset_resolves_and_says_its_name():
    assert set(preset_names()) == {"smoke", "laptop", "workstation", "paper"}
    for name in preset_names():
        assert load_config(preset=name).preset == name


def test_the_default_preset_is_laptop():
    assert load_config().preset == "laptop"


def test_flags_win_over_the_file_and_overrides_win_over_flags(tmp_path):
    path = write(tmp_path, "preset: smoke\nseed: 1\nsplit: {seed: 1, test_fraction: 0.5}\n")

    config = load_config(path, flags={"seed": 2, "split.seed": 2}, overrides=["split.seed=3"])

    assert (config.preset, config.seed, config.split.seed) == ("smoke", 2, 3)
    assert config.split.test_fraction == 0.5


def test_the_resolved_configuration_reads_back_to_itself(tmp_path):
    config = load_config(preset="smoke", overrides=["data.planes=all", "split.seed=5"])

    again = load_config(write(tmp_path, config.to_yaml().decode()))

    assert again.to_yaml() == config.to_yaml()


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("split.sorce=computed", "split.sorce: unknown key; did you mean 'split.source'?"),
        ("split.test_fraction=2", "split.test_fraction: 2"),
        ("split.source=offical", "split.source: 'offical'"),
        ("data.digest=abc", "data.digest: 'abc'"),
        ("seed=-1", "seed: -1"),
        ("seed=1.5", "seed: 1.5"),
        ("model.name=dcgan", "unknown generator 'dcgan'"),
        ("nonsense", "expected KEY=VALUE"),
        ("seed.deep=1", "seed.deep"),
        ("hazards=[no items]", "hazards: ['no items'] cannot be used; expected 'what could go"),
        ("lineage.change_plan=[seed]", "lineage.change_plan: ['seed'] cannot be used; expected"),
        ("lineage.parent=", "lineage.parent: "),
    ],
)
def test_a_bad_override_names_key_and_value(override, said):
    with pytest.raises(ConfigError) as caught:
        load_config(preset="smoke", flags={"seed": 1}, overrides=[override])

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.malformed("config")
@pytest.mark.malformed("config")
@pytest.mark.parametrize("generator", ["dsr-gan", "tb-gan"])
@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("recipe=published", "set model.name: {}-published and leave recipe out"),
        ("deviations={some_fault: true}", "set model.name: {}-published and leave recipe out"),
        ("recipe=corrected", "recipe: {} has one recipe alone; leave the key out"),
        ("deviations={}", "deviations: {} has one recipe alone; leave the key out"),
    ],
)
def test_a_recipe_of_former_settings_is_exit_code_2_and_one_sentence(generator, key, said):
    overrides = ["-o", f"model.name={generator}", "-o", f"model.settings.{key}"]

    result = CliRunner().invoke(app, ["run", "--preset", "smoke", *overrides])

    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert result.output.rstrip().endswith(said.replace("{}", generator))


def test_a_run_begun_with_former_settings_is_sent_to_its_version():
    data = load_config(preset="smoke").to_yaml()
    former = data.replace(b"  settings:\n", b"  settings:\n    recipe: corrected\n")

    with pytest.raises(ConfigError, match=r"^config.yaml: .* goes on with the version .* began it"):
        read_config(former, "config.yaml")


def test_an_unknown_generator_setting_names_its_full_key():
    with pytest.raises(ConfigError, match=r"model\.settings\.difusion: unknown key"):
        load_config(preset="smoke", overrides=["model.settings.difusion=1"])


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    ("model", "override", "said"),
    [
        ("dsr-gan", "diffusion.size=50", "super_resolution.to is 32; allowed are 100, 200 and 400"),
        ("dsr-gan", "super_resolution.to=50", "super_resolution.to is 50; allowed are 32, 64"),
        ("tb-gan", "size=50", "size"),
    ],
)
def test_a_size_that_the_network_cannot_take_is_named_without_the_other_settings(
    model, override, said
):
    overrides = [f"model.name={model}", f"model.settings.{override}"]
    with pytest.raises(ConfigError) as caught:
        load_config(preset="smoke", overrides=overrides)

    text = str(caught.value)
    assert text.startswith("model.settings")
    assert said in text
    assert "50" in text
    assert "{" not in text
    assert len(text) < 300


@pytest.mark.malformed("config")
def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        load_config(preset="smok")


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nseed: 2\n", "duplicate key"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("- 1\n", "expected keys and values"),
        ("seed: [1\n", "run.yaml:"),
        ("x: " + "y" * 70_000, "64 kB"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scientific_notation_is_a_number(tmp_path):
    config = load_config(write(tmp_path, "preset: smoke\nsplit: {tuning_fraction: 1e-1}\n"))

    assert config.split.tuning_fraction == pytest.approx(0.1)


def test_a_presets_pin_does_not_apply_to_other_data(tmp_path):
    pinned = load_config(preset="smoke").data.digest

    assert pinned is not None
    assert load_config(preset="smoke", flags={"data.path": str(tmp_path)}).data.digest is None
    assert load_config(preset="smoke", overrides=["data.phantom.seed=7"]).data.digest is None
    assert load_config(preset="smoke", overrides=["split.seed=7"]).data.digest == pinned


def test_every_key_is_documented():
    text = (DOCS / "configuration.md").read_text("utf-8")

    assert [key for key in keys(RunConfig) if f"`{key}`" not in text] == []


@pytest.mark.malformed("config")
def test_a_flood_of_brackets_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(ConfigError, match="more than 8 levels are not allowed"):
        load_config(write(tmp_path, "data: " + "[" * 20_000))


@pytest.mark.malformed("config")
@pytest.mark.parametrize("text", ["", "# nothing but a remark\n", "---\n"])
def test_an_empty_configuration_file_is_refused_and_starts_no_default_run(tmp_path, text):
    with pytest.raises(ConfigError, match=r"run\.yaml: is empty"):
        load_config(write(tmp_path, text))


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model.settings.diffusion", "batch_size", '"16"'),
        ("model.settings.diffusion", "batch_size", "16.0"),
        ("model.settings.diffusion", "flip", '"yes"'),
        ("model.settings.diffusion", "attention", "1"),
        ("model.settings.diffusion", "learning_rate", '"2e-3"'),
        ("model.settings.diffusion", "channels", '[32, "64"]'),
        ("training", "commit_every", '"10"'),
        ("evaluation", "n_synthetic", "true"),
        ("data.phantom", "n_patients", '"16"'),
        ("tracking", "enabled", '"true"'),
    ],
)
def test_a_value_of_another_kind_is_never_converted(section, key, value):
    with pytest.raises(ConfigError, match=f"{section}.{key}"):
        load_config(preset="smoke", overrides=[f"{section}.{key}={value}"])


@pytest.mark.malformed("config")
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("", 2),
        ("declarations", 2),
        ("audit.target_population", 2),
        ("evidence.vulnerability_scan", 2),
        ("signing.timestamp_certificate", 2),
        ("signing.key", 7),
    ],
)
def test_what_is_no_regular_file_is_refused_without_waiting_for_it(tmp_path, kind, key, code):
    path = {"pipe": tmp_path / "pipe", "folder": tmp_path, "device": Path("/dev/zero")}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    given = ["-o", f"{key}={path}"] if key else [str(path)]
    workspace = tmp_path / "ws"

    result = CliRunner().invoke(app, ["run", "--preset", "smoke", "-w", str(workspace), *given])

    assert result.exit_code == code
    assert len(result.output.splitlines()) == 1
    assert str(path) in result.output
    assert not workspace.exists()


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "model:\n  settings:\n    diffusion:\n      stepps: 3\n",
            r":4: model.settings.diffusion"
            r".stepps: unknown key; did you mean 'model.settings.diffusion.steps'",
        ),
        ("model:\n  settings:\n    super_resolution: {too: 64}\n", r":3: .*super_resolution\.to'"),
        (
            "model:\n  settings:\n    sampler_steps: 3\n",
            r":3: .*'model\.settings\.diffusion\."
            r"sampler_steps'",
        ),
        ("seed: 1\nn_patients: 20\n", r":2: n_patients: .*'data\.phantom\.n_patients'"),
        ("data:\n  phantom:\n    n_patient: 20\n", r":3: .*'data\.phantom\.n_patients'"),
        ("seed: 1\ntraining:\n  commit_every: 0\n", r":3: training\.commit_every: 0 "),
    ],
)
def test_a_mistyped_key_deep_in_a_file_gets_its_line_and_the_nearest_key(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        load_config(write(tmp_path, text))


def test_a_value_that_the_command_line_replaces_has_no_line_of_the_file(tmp_path):
    path = write(tmp_path, "training:\n  commit_every: 0\n")

    with pytest.raises(ConfigError, match=r"^training\.commit_every: -1"):
        load_config(path, overrides=["training.commit_every=-1"])


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("$FETAL_DATA_OF_NOBODY/d", "FETAL_DATA_OF_NOBODY is not set"),
        ("${FETAL_DATA_OF_NOBODY}/d", "FETAL_DATA_OF_NOBODY is not set"),
        ("$PATH/d", "PATH is set to another value"),
        ("", "names nothing"),
        ("  ", "names nothing"),
        ("a\0b", "NUL"),
        ("~nobody-has-this-name/d", "home directory"),
        ("caf\udce9", "no UTF-8"),
    ],
)
def test_a_path_that_can_mean_no_file_is_refused_with_its_key(path, said):
    for key in ("data.path", "workspace", "signing.key", "declarations", "data.contract"):
        with pytest.raises(ConfigError, match=f"^{key}: .*{said}"):
            load_config(preset="smoke", flags={key: path})


def test_a_folder_whose_name_looks_like_a_variable_can_be_used(tmp_path):
    (tmp_path / "$WS").mkdir()

    config = load_config(preset="smoke", flags={"workspace": str(tmp_path / "$WS")})

    assert config.workspace_path == tmp_path / "$WS"


@pytest.mark.malformed("config")
@pytest.mark.parametrize("text", ["retrain: new data", "a: b: c", "5"])
def test_a_text_that_yaml_reads_as_something_else_is_told_to_be_quoted(text):
    with pytest.raises(ConfigError, match=r"lineage\.reason.* -o 'lineage\.reason=\"TEXT\"'"):
        load_config(preset="smoke", overrides=[f"lineage.reason={text}"])
    quoted = load_config(preset="smoke", overrides=[f'lineage.reason="{text}"'])
    assert quoted.lineage.reason == text


def test_a_run_goes_on_from_any_folder_as_its_paths_are_recorded_absolute(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    paths = {"data.path": "d", "workspace": "ws", "declarations": "declared.yaml"}
    address = {"signing.key": "hsm:2", "data.cache": "off"}

    config = load_config(preset="smoke", flags=paths | address)
    monkeypatch.chdir(tmp_path / "other")

    again = read_config(config.to_yaml(), "config.yaml")
    flat = flat_config(again)
    assert {key: flat[key] for key in paths} == {k: str(tmp_path / v) for k, v in paths.items()}
    assert {key: flat[key] for key in address} == address
    assert changed_config(again, flags={"data.path": "../d"}) == again
    assert changed_config(again, overrides=["workspace=../ws"]) == again


PLANTED = "s3cretPW"


@pytest.mark.parametrize(
    "given",
    [
        ["-o", f"tracking.uri=http://alice:{PLANTED}@127.0.0.1:1"],
        ["-o", f"tracking.uri=alice:{PLANTED}@127.0.0.1"],
        ["-o", f"tracking.uri=[http://alice:{PLANTED}@127.0.0.1]"],
        ["-o", f"tracking.uri=postgresql://alice:{PLANTED}@db/x", "-o", "tracking.enabled=false"],
        ["-o", f"signing.timestamp_url=https://alice:{PLANTED}@tsa.example"],
        ["-o", f"signing.timestamp_url=https://tsa.example/?token={PLANTED}"],
        ["-o", f"signing.key=hsm:2?pin={PLANTED}"],
        ["-o", f"model.settings.api_key={PLANTED}"],
        ["-o", f"lineage.reason=see https://alice:{PLANTED}@wiki.example"],
        ["-o", f"https://alice:{PLANTED}@wiki.example"],
        ["--data", f"https://alice:{PLANTED}@files.example/set"],
        ["-w", f"smb://alice:{PLANTED}@server/share"],
    ],
)
def test_a_password_or_token_in_any_setting_is_refused_and_repeated_nowhere(
    given, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, ["run", "--preset", "smoke", *given])

    assert result.exit_code == 2, result.output
    assert PLANTED not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_password_for_mlflow_is_said_to_belong_in_its_environment_variables():
    with pytest.raises(ConfigError, match=r"^tracking\.uri: .*MLFLOW_TRACKING_PASSWORD"):
        load_config(overrides=[f"tracking.uri=https://a:{PLANTED}@mlflow.example"])
