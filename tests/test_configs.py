"""Every config instantiates: its names exist, its values have the right types, and its models can be built."""

import pathlib

import pytest

from jaxsplit import cli
from jaxsplit.model.config import Architecture
from jaxsplit.split.experiment import Experiment
from jaxsplit.train import SETTINGS
from jaxsplit.training.loop import Training

CONFIGS = sorted((pathlib.Path(__file__).parent.parent / "configs").rglob("*.gin"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config(path):
  given = cli.parse("train", "", SETTINGS, [f"--gin_file={path}", f"--gin_search_paths={path.parent}"])
  for size in (*given[Experiment].sizes, given[Experiment].target):
    assert given[Architecture].at(*size, 256, given[Training].sequence_length).params > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_says_how_to_run_it(path):
  head = path.read_text().split("\n\n")[0] + path.read_text()
  assert f"--gin_file=configs/{path.name}" in head


def test_there_are_configs():
  assert {"quickstart", "phonebook", "domains_cpu"} <= {path.stem for path in CONFIGS}
