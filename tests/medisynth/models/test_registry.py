"""Generators are found by name or by path, and what cannot be one is refused in a sentence."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from governance.records.errors import SettingsError
from medisynth.models.registry import (
    generator_names,
    generator_origin,
    import_folder,
    load_generator,
)
from tests.places import ROOT
from tests.plugins.pca_gaussian import PcaGaussian

PCA = "tests.plugins.pca_gaussian:PcaGaussian"
WHOLE = """
from pydantic import BaseModel
class Settings(BaseModel):
    pass
class Whole:
    name = "whole"
    title = "A whole generator"
    Settings = Settings
    def __init__(self, settings): pass
    @staticmethod
    def image_size_px(settings): return 8
    def fit(self, training, tuning, context): pass
    def sample(self, n, context, condition=None): pass
    def state(self): return {}
    def load_state(self, tensors): pass
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that can be imported as long as the test runs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def write(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source, encoding="utf-8")
        written.append(name)
        return path

    yield write
    for name in written:
        sys.modules.pop(name, None)


def register(folder: Path, distribution: str, *lines: str) -> None:
    info = folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("\n".join(["[medisynth.models]", *lines]) + "\n")


def test_the_built_in_generator_is_found_by_name():
    assert "dsr-gan" in generator_names()
    assert load_generator("dsr-gan").name == "dsr-gan"


def test_a_class_that_is_not_registered_is_found_by_its_path():
    assert load_generator(PCA) is PcaGaussian


def test_a_generator_of_an_installed_package_is_found_by_name(module, tmp_path):
    module("whole_one", WHOLE)
    register(tmp_path, "whole-package", "whole = whole_one:Whole")

    assert "whole" in generator_names()
    assert load_generator("whole").title == "A whole generator"


def test_a_generator_of_a_study_is_found_by_name_without_torch(tmp_path):
    study = "medisynth.studies.midl2023"
    register(
        tmp_path,
        "study",
        f"dsr-gan-published = {study}.dsr_gan_published:DsrGanPublished",
        f"tb-gan-published = {study}.tb_gan_published:TbGanPublished",
    )
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "from pipelines.config.model import load_config\n"
        "for name in ('dsr-gan-published', 'tb-gan-published'):\n"
        "    settings = load_config(preset='smoke', overrides=['model.name=' + name])"
        ".generator_settings()\n"
        "    print(name, len(settings.deviations.switched_on()), 'torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603

    assert done.stdout.splitlines() == ["dsr-gan-published 7 False", "tb-gan-published 6 False"]


def test_a_name_that_two_packages_register_differently_is_refused(module, tmp_path):
    module("whole_two", WHOLE)
    register(tmp_path, "package-a", "twice = whole_two:Whole")
    register(tmp_path, "package-b", "twice = whole_two:Other")

    with pytest.raises(SettingsError, match="two packages register a generator named 'twice'"):
        load_generator("twice")


def test_the_origin_names_distribution_version_and_digest_of_the_source(module, tmp_path):
    source = module("whole_three", WHOLE)
    register(tmp_path, "whole-package", "three = whole_three:Whole")

    origin = generator_origin("three")

    assert (origin.distribution, origin.version) == ("whole-package", "1.2")
    assert (origin.module, origin.class_name) == ("whole_three", "Whole")
    assert origin.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert str(origin).startswith("whole_three:Whole (whole-package 1.2, source sha256:")


def test_the_origin_of_a_class_in_no_distribution_says_so(module):
    module("loose_module", WHOLE)

    origin = generator_origin("loose_module:Whole")

    assert (origin.distribution, origin.version) == (None, None)
    assert "not installed" in str(origin)


def test_the_origin_of_a_built_in_generator_is_this_distribution():
    assert generator_origin("dsr-gan").distribution == "medisynth-gov"


def test_an_unknown_name_gets_the_near_one_and_all_known_ones():
    with pytest.raises(SettingsError) as caught:
        load_generator("dsr-gam")

    assert "did you mean 'dsr-gan'?" in str(caught.value)
    assert all(name in str(caught.value) for name in generator_names())
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nowhere_to_be_found\n", "broken.py, line 1, raised ModuleNotFoundError"),
        ("x = 1\ny = x / 0\n", "broken.py, line 2, raised ZeroDivisionError: division by zero"),
        ("x = 1\n\nclass (:\n", "broken.py, line 3, raised SyntaxError"),
        ("raise SystemExit(0)\n", "broken.py, line 1, raised SystemExit"),
        ("raise ValueError\n", "no reason given"),
        ("x = 1\n", "raised AttributeError"),
    ],
)
def test_a_module_that_cannot_be_imported_gives_one_sentence(module, source, said):
    module("broken", source)

    with pytest.raises(SettingsError) as caught:
        load_generator("broken:Whole")

    assert said in str(caught.value)
    assert "broken:Whole cannot be imported" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_gives_one_sentence():
    with pytest.raises(SettingsError, match=r"no_such_package\.x:Y cannot be imported"):
        load_generator("no_such_package.x:Y")


@pytest.mark.parametrize(
    "path", [":", "a:", ":B", "a:b.c", "../a:B", "a b:C", "a:B:C", "a.:B", "a:B\n", "a-b:C"]
)
def test_what_is_no_path_to_a_class_is_refused_before_any_import(path):
    with pytest.raises(SettingsError, match=r"package\.module:Class"):
        load_generator(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    def state(self)", "    def stat(self)", "it has no method state"),
        ("    def sample(", "    def draw(", "it has no method sample"),
        ('    name = "whole"\n', "", "it has no text name"),
        ('    name = "whole"\n', "    name = 'a/b'\n", "its name 'a/b' is not"),
        ("    title = ", "    caption = ", "it has no text title"),
        ("    Settings = Settings", "    Settings = dict", "its Settings is no pydantic model"),
        ("    Settings = Settings", "    Options = dict", "its Settings is no pydantic model"),
        ("class Whole:", "Whole = 3\nclass Hole:", "is no class but int"),
    ],
)
def test_a_class_that_lacks_a_member_of_the_protocol_is_refused_by_its_name(module, old, new, said):
    assert old in WHOLE
    module("lacking", WHOLE.replace(old, new))

    with pytest.raises(SettingsError) as caught:
        load_generator("lacking:Whole")

    assert said in str(caught.value)


def test_every_lacking_member_is_named_at_once():
    with pytest.raises(SettingsError) as caught:
        load_generator("tests.plugins.faulty:NotAGenerator")

    for member in ("image_size_px", "sample", "state", "load_state", "title", "Settings"):
        assert member in str(caught.value)


def test_the_folder_to_import_from_is_that_of_the_named_module(module, tmp_path):
    module("whole_four", WHOLE)
    package = tmp_path / "outer" / "inner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from whole_four import Whole\n")

    assert import_folder("whole_four:Whole") == tmp_path
    assert import_folder("outer.inner:Whole") == tmp_path
    assert import_folder(PCA) == ROOT
    assert import_folder("dsr-gan") is None


def test_looking_at_a_generators_settings_imports_no_torch():
    code = (
        "import sys; from medisynth.models.registry import load_generator;"
        f"load_generator({PCA!r}).Settings(); load_generator('dsr-gan').Settings();"
        "sys.exit('torch' in sys.modules)"
    )
    root = ROOT

    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)  # noqa: S603

    assert done.returncode == 0
