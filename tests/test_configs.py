"""Every config instantiates: its names exist, its values have the right types, and its models can be built."""

import pathlib

import pytest

from jaxsplit import cli
from jaxsplit.experiment.settings import Experiment
from jaxsplit.law import FitSettings
from jaxsplit.models.config import Architecture
from jaxsplit.train import SETTINGS
from jaxsplit.training.loop import Training

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.gin") if path.name != "common.gin")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_config(path):
  files = [ROOT / "configs/scales/125m.gin", path] if path.parent.name == "machines" else [path]
  given = cli.parse("train", "", SETTINGS, [f"--gin_file={file}" for file in files])
  for size in (*(given[Experiment].sizes or ()), given[Experiment].target):
    assert given[Architecture].at(*size, 256, given[Training].sequence_length).params > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_sizes_are_held_out_only_where_they_are_given(path):
  given = cli.parse("train", "", SETTINGS, [f"--gin_file={path}"])
  assert given[Experiment].sizes or given[FitSettings].holdout == "auto", "a sweep that is chosen may have one size"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_config_says_how_to_run_it(path):
  assert f"--gin_file={path.relative_to(ROOT)}" in path.read_text()


def test_the_defaults_can_be_built_too():
  given = cli.parse("train", "", SETTINGS, [])
  for size in (*(given[Experiment].sizes or ()), given[Experiment].target):
    assert given[Architecture].at(*size, 256, given[Training].sequence_length).params > 0


def test_there_are_configs():
  assert {"quickstart", "phonebook", "domains_cpu"} <= {path.stem for path in CONFIGS}
