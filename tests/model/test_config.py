import jax
import pytest

from jaxsplit.errors import InputError
from jaxsplit.model.config import Architecture
from jaxsplit.model.transformer import initialize, param_axes


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_counts_are_those_of_the_arrays(tied, qk_norm):
  config = Architecture(head_dim=8, queries_per_kv=2, tie_embeddings=tied, qk_norm=qk_norm).at(32, 3, 50, 16)
  params = jax.eval_shape(lambda: initialize(config, jax.random.key(0)))
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
  params = jax.eval_shape(lambda: initialize(config, jax.random.key(0)))
  jax.tree.map(lambda axes, x: pytest.fail(f"{axes} {x.shape}") if len(axes) != x.ndim else None, param_axes(config), params,
               is_leaf=lambda a: isinstance(a, tuple))


@pytest.mark.parametrize("width, architecture, message", [
    (40, Architecture(head_dim=16), "use a width of 48"),
    (48, Architecture(head_dim=16, queries_per_kv=2), "queries_per_kv = 2 must divide the 3 heads"),
])
def test_shapes_that_cannot_be(width, architecture, message):
  with pytest.raises(InputError, match=message):
    architecture.at(width, 2, 50, 4)
