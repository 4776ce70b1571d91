"""The settings of an experiment, as its work directory has them."""

import dataclasses
import json

import pytest

from jaxsplit.errors import InputError
from jaxsplit.experiment.settings import Experiment, Settings, kept_settings
from jaxsplit.files import write_json
from jaxsplit.models.config import Architecture


def keep(path, settings, **more):
  write_json(path / "config.json", {**{type(part).__name__: dataclasses.asdict(part) for part in settings.parts}, **more})


def test_settings_come_back_and_new_ones_are_as_by_default(tmp_path):
  settings = Settings(Experiment(sizes=((8, 1), (16, 2)), compare=(0.5, 1.0)), architecture=Architecture(head_dim=8))
  keep(tmp_path, settings)
  assert kept_settings(tmp_path) == settings
  config = json.loads((tmp_path / "config.json").read_text())
  del config["FitSettings"]["bootstrap"]
  write_json(tmp_path / "config.json", config)
  assert kept_settings(tmp_path) == settings


def test_a_store_that_has_moved(tmp_path):
  keep(tmp_path, Settings(), Store={"path": "/old", "manifest_hash": "x"})
  assert kept_settings(tmp_path).store == "/old" and kept_settings(tmp_path, "new").store == "new"
  keep(tmp_path, Settings())
  with pytest.raises(InputError, match="--store=new: the tokens of .* are in"):
    kept_settings(tmp_path, "new")


@pytest.mark.parametrize("change", [lambda c: c["Experiment"].update(replicas="two"), lambda c: c.update(Layout=[1])])
def test_what_is_damaged_is_one_line(tmp_path, change):
  keep(tmp_path, Settings())
  config = json.loads((tmp_path / "config.json").read_text())
  change(config)
  write_json(tmp_path / "config.json", config)
  with pytest.raises(InputError, match="config.json: damaged, or written by another version"):
    kept_settings(tmp_path)
