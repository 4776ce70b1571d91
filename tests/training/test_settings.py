"""Settings of training that cannot be, each refused by name."""

import pytest

from jaxsplit.errors import InputError
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training.loop import Training
from jaxsplit.training.optimizer import Optimizer


@pytest.mark.parametrize("cls, name, value, must", [
    (Training, "sequence_length", 0, "1 or more"),
    (Training, "batch_sequences", 0, "1 or more"),
    (Training, "steps_per_dispatch", 0, "1 or more"),
    (Training, "runs_per_map", -1, "0 or more"),
    (Training, "save_every_steps", 0, "1 or more"),
    (Training, "retries", -1, "0 or more"),
    (Training, "spike", 0.0, "positive"),
    (Training, "spike", -1.0, "positive"),
    (Training, "accumulation", -1, "divide"),
    (Training, "accumulation", 3, "divide"),
    (Optimizer, "b1", 2.0, "less than 1"),
    (Optimizer, "b1", -0.1, "less than 1"),
    (Optimizer, "b2", 1.0, "less than 1"),
    (Optimizer, "eps", 0.0, "positive"),
    (Optimizer, "weight_decay", -0.1, "0 or more"),
    (Optimizer, "clip_norm", 0.0, "positive"),
    (Optimizer, "clip_norm", -1.0, "positive"),
    (Optimizer, "warmup_tokens", -5, "0 or more"),
    (Layout, "expert", -1, "0 or more"),
    (Layout, "data", -1, "0 or more"),
    (Layout, "tensor", 0, "1 or more"),
    (Layout, "devices", -1, "0 or more"),
])
def test_it_is_refused_by_name(cls, name, value, must):
  with pytest.raises(InputError, match=f"{cls.__name__}.{name} = {value}.*{must}"):
    cls(**{name: value})


def test_the_least_that_may_be():
  Training(sequence_length=1, batch_sequences=1, accumulation=0, steps_per_dispatch=1, runs_per_map=0, save_every_steps=1,
           retries=0)
  Optimizer(b1=0.0, b2=0.0, weight_decay=0.0, warmup_tokens=0)
  Layout(expert=0, data=0, tensor=1, devices=0)
