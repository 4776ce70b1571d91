"""For tests of the model, which compare numbers: products of float32 are float32's everywhere.

By default a GPU multiplies them in tf32 and a TPU in bfloat16, which is further off than what is tested.
"""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def whole_products():
  with jax.default_matmul_precision("highest"):
    yield
