"""Token blocks on a mesh: every device gets its own part, whatever part of the block its process has read."""

import jax
import numpy as np
from jax.sharding import AxisType

from jaxsplit.parallel import placement, sharding


def test_a_part_of_a_block_is_placed_as_the_whole_would_be():
  mesh = jax.make_mesh((2, 1, 1), ("expert", "data", "tensor"), axis_types=(AxisType.Auto,) * 3)
  on_mesh, block = sharding.batch_sharding(mesh), np.arange(3 * 4 * 5 * 2, dtype=np.int32).reshape(3, 4, 5, 2)
  runs, rows = placement.held(on_mesh, block.shape)
  np.testing.assert_array_equal(runs, range(4))
  np.testing.assert_array_equal(rows, range(5))
  placed = placement.assemble(block, runs, rows, block.shape, on_mesh)
  assert placed.sharding == on_mesh
  np.testing.assert_array_equal(placed, block)
  for shard in placed.addressable_shards:
    np.testing.assert_array_equal(shard.data, block[shard.index])
