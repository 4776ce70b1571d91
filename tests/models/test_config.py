import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

import jaxsplit.models
from jaxsplit.errors import InputError
from jaxsplit.models.config import Architecture


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_counts_are_those_of_the_arrays(tied, qk_norm):
  config = Architecture(head_dim=8, queries_per_kv=2, tie_embeddings=tied, qk_norm=qk_norm).at(32, 3, 50, 16)
  params = jax.eval_shape(lambda: config.initialize(jnp.uint32(0)))
  total = sum(x.size for x in jax.tree.leaves(params))
  embeddings = params["embed_VxD"].size + (0 if tied else params["unembed_DxV"].size)
  assert config.params_total == total
  assert config.params == total - embeddings


def test_flops_by_hand():
  config = Architecture(head_dim=8, qk_norm=False).at(16, 1, 50, 4)
  attention, mlp, norms = 4 * 16 * 16, 3 * 16 * 48, 3 * 16
  assert config.flops_per_token == 6 * (attention + mlp + norms + 50 * 16) + 12 * 16 * 4


def test_every_dimension_has_an_axis():
  config = Architecture(head_dim=8).at(16, 2, 50, 4)
  params = jax.eval_shape(lambda: config.initialize(jnp.uint32(0)))
  jax.tree.map(lambda axes, x: pytest.fail(f"{axes} {x.shape}") if len(axes) != x.ndim else None, config.param_axes, params,
               is_leaf=lambda a: isinstance(a, tuple))


@pytest.mark.parametrize("width, architecture, message", [
    (40, Architecture(head_dim=16), "use a width of 48"),
    (48, Architecture(head_dim=16, queries_per_kv=2), "queries_per_kv = 2 must divide the 3 heads"),
    (0, Architecture(), r"width 0 and depth 2 is none; give \(width, depth\) of 1 or more in Experiment.target"),
    (-16, Architecture(), "width -16 and depth 2 is none"),
    (32, Architecture(mlp_ratio=0.01), "mlp_ratio = 0.01 leaves a model of width 32 no hidden unit"),
])
def test_shapes_that_cannot_be(width, architecture, message):
  with pytest.raises(InputError, match=message):
    architecture.at(width, 2, 50, 4)


def test_the_legend_has_every_letter():
  said = set(re.findall(r"^ *(\w)  ", jaxsplit.models.__doc__, re.M))
  code = "".join(path.read_text() for path in pathlib.Path(jaxsplit.models.__file__).parents[1].rglob("*.py"))
  shapes = re.findall(r"\b[a-z]\w*_([A-Z](?:\d|x[A-Za-z1])+)\b", code)
  used = {letter for shape in shapes for letter in re.findall("[A-Za-z]", re.sub("x(?=[A-Za-z1])", "", shape))}
  assert len(used) > 15 and not used - said


def test_a_model_without_layers_is_none():
  with pytest.raises(InputError, match="width 32 and depth 0 is none"):
    Architecture().at(32, 0, 50, 4)


@pytest.mark.parametrize("settings, message", [
    ({"head_dim": 0}, "Architecture.head_dim = 0: must be 2 or more"),
    ({"queries_per_kv": 0}, "Architecture.queries_per_kv = 0: must be 1 or more"),
    ({"mlp_ratio": 0.0}, "Architecture.mlp_ratio = 0.0: must be positive"),
    ({"mlp_ratio": -1.0}, "Architecture.mlp_ratio = -1.0: must be positive"),
    ({"rope_theta": 0.0}, "Architecture.rope_theta = 0.0: must be positive"),
])
def test_architectures_that_cannot_be(settings, message):
  with pytest.raises(InputError, match=message):
    Architecture(**settings)
