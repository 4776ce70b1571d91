"""What an installed jaxsplit finds of itself, wherever it is started."""

import pathlib
import tomllib

import pytest

from jaxsplit import cli, train
from jaxsplit.errors import InputError
from jaxsplit.experiment.settings import Experiment

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize("name", ["quickstart.gin", "configs/quickstart.gin", "scales/1_3b.gin"])
def test_a_config_that_comes_with_jaxsplit_is_found_by_its_name(name):
  given = cli.parse("train", "", train.SETTINGS, [f"--gin_file={name}"])
  there = cli.parse("train", "", train.SETTINGS, [f"--gin_file={ROOT / 'configs' / name.removeprefix('configs/')}"])
  assert given.values == there.values and given[Experiment] != Experiment()


def test_a_file_of_that_name_in_the_current_folder_goes_first(empty_folder):
  (empty_folder / "quickstart.gin").write_text("Experiment.replicas = 7")
  assert cli.parse("train", "", train.SETTINGS, ["--gin_file=quickstart.gin"])[Experiment].replicas == 7


def test_a_name_that_nearly_comes_with_jaxsplit_is_told():
  with pytest.raises(InputError, match="no such file: quikstart.gin; did you mean quickstart.gin"):
    cli.parse("train", "", train.SETTINGS, ["--gin_file=quikstart.gin"])


def test_a_wheel_has_the_configs_where_they_are_looked_for():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())
  assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {"configs": "jaxsplit/configs"}
  assert {"tpu", "cuda", "test"} <= set(project["project"]["optional-dependencies"])
  assert (ROOT / "jaxsplit/py.typed").exists()
