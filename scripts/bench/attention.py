"""Attention that stays inside documents: what cuDNN's kernel computes and takes, against dense attention.

    python scripts/bench/attention.py                              B = 8, T = 2,048, 16 heads of 64 and of 128, on a GPU
    python scripts/bench/attention.py --batch=2 --length=256       less

Documents are a tenth of a window long on average. Values are y and the derivatives of the sum of its squares, against dense
attention in float32; times are of both passes, medians, all in turns, and in bfloat16. FLOPs are those of a causal mask. Without
an NVIDIA GPU the same function computes in cuDNN's place without it. Prints a JSON line for each head width, once it is measured.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from stacks import in_turns

from jaxsplit.models.kernels import attention, cudnn, dense

END_OF_DOCUMENT = 0


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  for name, value in {"batch": 8, "length": 2048, "heads": 16, "calls": 10, "rounds": 5}.items():
    parser.add_argument(f"--{name}", type=int, default=value)
  parser.add_argument("--head_dims", type=int, nargs="+", default=[64, 128])
  flags = parser.parse_args()
  for head_dim in flags.head_dims:
    print(json.dumps(compare(flags, head_dim)), flush=True)


def compare(flags: argparse.Namespace, head_dim: int) -> dict:
  """Errors and times at one width of heads."""
  random = np.random.default_rng(0)
  shape = flags.batch, flags.length, flags.heads
  draw = lambda *more: jnp.asarray(random.normal(size=(*shape, *more, head_dim)), jnp.bfloat16)
  qkv = draw(1), draw(), draw()
  tokens_BxT = jnp.asarray(random.random(shape[:2]) > 10 / flags.length, jnp.int32)  # 0 ends a document.
  digits_BxTxe = cudnn.digits(attention.segments(tokens_BxT, END_OF_DOCUMENT), head_dim)
  mask_Bx1xTxT = dense.causal_mask(dense.document_starts(tokens_BxT, END_OF_DOCUMENT), flags.length)
  by = "cudnn" if cudnn.widest() else "xla"
  by_cudnn = functools.partial(cudnn.attend, implementation=by)
  ways = {"documents": (by_cudnn, digits_BxTxe), "one document": (by_cudnn, None),
          "dense, documents": (dense.attend, mask_Bx1xTxT)}
  passes = {name: functools.partial(both_passes, attend, apart) for name, (attend, apart) in ways.items()}
  with jax.default_matmul_precision("highest"):
    expected = passes["dense, documents"](*(x.astype(jnp.float32) for x in qkv))
  off = lambda found: {name: float(jnp.linalg.norm((a - b).ravel()) / jnp.linalg.norm(b.ravel()))
                       for name, a, b in zip(("y", "dq", "dk", "dv"), found, expected)}
  errors = {name: off(passes[name](*qkv)) for name in ("documents", "dense, documents")}
  seconds = in_turns({name: timed(f, qkv, flags.calls) for name, f in passes.items()}, flags.rounds)
  milliseconds = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
  flops = 6 * 2 * flags.batch * flags.heads * flags.length**2 / 2 * head_dim  # Two products forward, four derivatives.
  return {
      "device": jax.devices()[0].device_kind, "jax": jax.__version__, "by": by, "batch": flags.batch, "length": flags.length,
      "heads": flags.heads, "head_dim": head_dim, "joined": cudnn.width(flags.length, head_dim, documents=True),
      "off": {name: {part: float(f"{x:.2g}") for part, x in parts.items()} for name, parts in errors.items()},
      "ms": {name: round(x, 3) for name, x in milliseconds.items()},
      "tflops_per_s": {name: round(flops / x / 1e9, 3) for name, x in milliseconds.items()},
      "dense_over_documents": round(milliseconds["dense, documents"] / milliseconds["documents"], 2)}


@functools.partial(jax.jit, static_argnums=0)
def both_passes(attend: Callable[..., jax.Array], apart: jax.Array | None, *qkv: jax.Array) -> tuple[jax.Array, ...]:
  """y, dq, dk and dv of `attend(q, k, v, apart)`."""
  y, back = jax.vjp(lambda *qkv: attend(*qkv, apart), *qkv)
  return y, *back(2 * y)


def timed(f: Callable, qkv: tuple[jax.Array, ...], calls: int) -> Callable[[], float]:
  """Seconds of one call, over `calls` of them in a row."""
  def seconds() -> float:
    began = time.perf_counter()
    for _ in range(calls):
      out = f(*qkv)
    jax.block_until_ready(out)
    return (time.perf_counter() - began) / calls

  return seconds


if __name__ == "__main__":
  main()
