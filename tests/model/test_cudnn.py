"""cuDNN's attention, as far as a machine without a GPU can say: where it is taken, and that stacks with it lower."""

import pytest
from jax._src.cudnn import fused_attention_stablehlo

from jaxsplit.errors import InputError
from jaxsplit.model import attention, cudnn
from jaxsplit.model.config import Architecture
from jaxsplit.training import stack
from jaxsplit.training.optimizer import Optimizer
from jaxsplit.training.sharding import Layout
from jaxsplit.training.stack import StackSpec

CUDNN = {"attention": "cudnn", "document_masking": False, "compute_dtype": "bfloat16"}


def test_it_is_not_taken_without_its_gpu():
  assert not cudnn.is_here()
  assert attention.kernel(Architecture(head_dim=64, document_masking=False).at(128, 1, 32, 128)) == "dense"
  assert attention.kernel(Architecture(head_dim=64, **CUDNN).at(128, 1, 32, 128)) == "cudnn"


@pytest.mark.parametrize("wrong, line", [
    ({"head_dim": 192}, "not 192"), ({"document_masking": True}, "not True"), ({"compute_dtype": "float32"}, "not 'float32'")])
def test_what_it_does_not_take_is_refused(wrong, line):
  with pytest.raises(InputError, match=f"{line}.* use 'auto'"):
    Architecture(**{"head_dim": 64, **CUDNN, **wrong}).at(192, 1, 32, 128)


@pytest.mark.parametrize("together", [0, 1], ids=["vmap", "map"])
def test_a_stack_with_it_is_lowered_for_a_gpu(together, monkeypatch):
  monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)  # JAX asks the machine that lowers.
  model = Architecture(head_dim=64, queries_per_kv=2, remat="dots", **CUDNN).at(256, 2, 64, 128)
  spec = StackSpec(model, Optimizer(), Layout(data=2, devices=2), 2, together, 8, 0)
  program = stack.train_block(spec).trace(*stack._training_arguments(spec, 1))
  assert "__cudnn$fmhaSoftmaxBackward" in program.lower(lowering_platforms=("cuda",)).as_text()
