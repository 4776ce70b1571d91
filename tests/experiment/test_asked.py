"""Settings that cannot work are refused by themselves, each by its name."""

import pytest

from jaxsplit import train
from jaxsplit.errors import InputError
from jaxsplit.experiment.settings import Experiment


@pytest.mark.parametrize("settings, message", [
    ({"validation_tokens": 0}, "Experiment.validation_tokens = 0: must be 1 or more"),
    ({"budget_tokens": -5}, "Experiment.budget_tokens = -5: must be 1 or more"),
    ({"replicas": 0}, "Experiment.replicas = 0: must be 1 or more"),
    ({"sizes": (), "compare": ()}, "nothing to train: give sizes"),
    ({"compare": (1.5,)}, "1.5 is not a fraction of the budget")])
def test_what_can_be_said_of_an_experiment_alone(settings, message):
  with pytest.raises(InputError, match=message):
    Experiment(**settings)


@pytest.mark.parametrize("flags, message", [
    (["--gin.Experiment.validation_tokens=100"], "validation_tokens = 100 is less than one window of Training.sequence_length = 128"),
    (["--store="], "--store= is empty; give a path, or leave the flag out"),
    (["--gin.Experiment.budget_tokens=100"], "at least 100 steps")])
def test_what_the_entry_point_refuses_before_it_makes_anything(flags, message, tmp_path):
  with pytest.raises(InputError, match=message):
    train.main([f"--workdir={tmp_path / 'w'}", *flags])
  assert not (tmp_path / "w").exists()
