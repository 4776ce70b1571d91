"""How to train a stack that does not fit into memory as requested: in other layouts, in more parts of a batch, or in waves.

Decided by the estimate of `memory`, before anything is compiled: of what fits, the choice that takes the least time. It does not
change results: layouts and parts change the order of sums only, waves nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from jaxsplit.errors import InputError
from jaxsplit.parallel import sharding
from jaxsplit.parallel.sharding import Layout
from jaxsplit.training import memory
from jaxsplit.training.stack import StackSpec

# What a device could compute, in FLOPs, while it reads or writes a byte of its memory, and while it sends one to another device.
# TPU v5e: 197 TFLOP/s, 819 GB/s and 200 GB/s; H100: 989 TFLOP/s, 3,350 GB/s and 450 GB/s. That of the slower links counts.
_MOVED, _SENT = 250, 1000
_COMPUTED = {"none": 1.0, "dots": 1.1, "full": 4 / 3}  # Of what a step takes without remat.


def fitted(wanted: StackSpec, any_parts: bool) -> StackSpec | None:
  """The stack as it fits into its devices.

  Args:
    wanted: the stack requested by the settings, without idle runs.
    any_parts: whether batches may be divided into more parts.

  Returns:
    The stack with as many idle runs as its devices need, in as few parts as fit, and in its layout; if that does not
    fit, in the layout and parts that take the least time, among those that keep the layout's explicit settings, or else among all.
    None if nothing fits.
  """
  given = next(filter(memory.fits, _given(wanted, any_parts)), None)
  if given is not None:
    return given
  options = sorted(_laid_out(wanted, any_parts), key=lambda spec: (_departs(spec.layout, wanted.layout), time(spec)))
  return next(filter(memory.fits, options), None)


def as_given(wanted: StackSpec) -> StackSpec:
  """The stack with the idle runs that the layout of its settings needs. Its mesh raises InputError where that divides nothing."""
  return dataclasses.replace(wanted, runs=sharding.padded_runs(wanted.layout, wanted.runs, wanted.elsewhere))


def wave(wanted: StackSpec, runs: int) -> StackSpec:
  """A wave of so many runs of the stack, as the settings have it."""
  shared = wanted.layout.expert and runs % wanted.layout.expert == 0
  layout = wanted.layout if shared else dataclasses.replace(wanted.layout, expert=0)
  return dataclasses.replace(wanted, runs=runs, layout=layout)


def waves(wanted: StackSpec, any_parts: bool) -> int:
  """The number of waves of equally many runs for the stack: 1 if it fits as it is, otherwise the number that takes the least time.

  Args: as of `fitted`.

  Raises:
    InputError: not even one run fits; the line names the settings with which it would. Or the layout's numbers do not divide the
      devices, the runs or the batch.
  """
  _ = as_given(wanted).mesh  # Raises.
  whole = fitted(wanted, any_parts)
  if whole is not None and whole.layout == wanted.layout:
    return 1
  options = []
  for count in range(1, wanted.runs + 1):
    runs = -(-wanted.runs // count)
    if -(-wanted.runs // runs) == count:  # Fewer waves of as many runs would not do.
      spec = whole if count == 1 else fitted(wave(wanted, runs), any_parts)
      if spec is not None:
        options.append((_departs(spec.layout, wanted.layout), count * time(spec), count))
  if not options:
    raise _refusal(wanted, any_parts)
  return min(options)[-1]


def time(spec: StackSpec) -> float:
  """About how long a step of the whole stack takes: FLOPs that a device computes, or could while it moves and sends bytes."""
  c, shape, parts = spec.model, spec.mesh.shape, spec.accumulation
  data, tensor, width = shape["data"], shape["tensor"], spec.model.dtype.itemsize
  tokens, params = spec.batch * c.sequence_length / data, c.params_total / tensor
  computed = tokens / tensor * c.flops_per_token * _COMPUTED[c.remat]
  # A part's gradients are added to the sum, and its weights read twice; the optimizer reads and writes weights and moments.
  moved = (parts * (12 + 2 * width) + 28) * params / (data if spec.layout.fsdp else 1)
  # Gradients are summed over `data`; with fsdp each part gathers the weights twice. A layer sums over `tensor` four times.
  summed = (2 * width + 4 if spec.layout.fsdp else 8) * parts * params * (data - 1) / data
  joined = 4 * c.depth * 2 * tokens * c.width * width * (tensor - 1) / tensor
  return spec.runs // shape["expert"] * (computed + _MOVED * moved + _SENT * (summed + joined))


def _given(wanted: StackSpec, any_parts: bool) -> Iterator[StackSpec]:
  """The stack in the layout of its settings, in every number of parts; none where that is no layout for it."""
  given = as_given(wanted)
  try:
    data = given.mesh.shape["data"]
  except InputError:  # Of a wave, or of single runs of a stack: those of the whole stack are raised by `waves`.
    return
  for parts in _parts(given, data) if any_parts else (given.accumulation,):
    yield dataclasses.replace(given, accumulation=parts)


def _laid_out(wanted: StackSpec, any_parts: bool) -> Iterator[StackSpec]:
  """The stack in every layout that its devices allow, in every number of parts."""
  c, idle_at_most = wanted.model, wanted.runs
  for layout in sharding.divisions(wanted.layout, wanted.elsewhere):
    runs = -(-wanted.runs // layout.expert) * layout.expert
    if sharding.divides(c, layout.tensor) and runs - wanted.runs < idle_at_most and wanted.microbatch % layout.data == 0:
      for parts in _parts(wanted, layout.data) if any_parts else (wanted.accumulation,):
        yield dataclasses.replace(wanted, layout=layout, runs=runs, accumulation=parts)


def _parts(spec: StackSpec, data: int) -> list[int]:
  """The possible numbers of parts of its batches: no fewer than now, each part divisible by the `data` devices."""
  return [spec.accumulation * factor for factor in range(1, spec.microbatch + 1) if spec.microbatch % (factor * data) == 0]


def _departs(layout: Layout, given: Layout) -> bool:
  """Whether the layout is another than the one given, in what that sets explicitly."""
  explicit = {"expert": given.expert, "data": given.data, "tensor": given.tensor if given.tensor > 1 else 0}
  return any(value not in (0, getattr(layout, name)) for name, value in explicit.items())


def _refusal(wanted: StackSpec, any_parts: bool) -> InputError:
  """The error if not even one run fits: its least memory, and settings that need less, by the time that they cost."""
  one = wave(wanted, 1)
  least = min(_laid_out(one, any_parts), key=lambda spec: memory.estimate(spec).total, default=as_given(one))
  optimizer = one.optimizer
  remats = {"none": ("none", "dots", "full"), "dots": ("dots", "full"), "full": ("full",)}[one.model.remat]
  moments = [optimizer] + ([dataclasses.replace(optimizer, moments="bfloat16")]
                           if optimizer.moments == "float32" and optimizer.b2 <= 0.99 else [])
  others = [spec for kept, remat in itertools.product(moments, remats) for spec in _laid_out(
      dataclasses.replace(one, optimizer=kept, model=dataclasses.replace(one.model, remat=remat)), any_parts=True)]
  others.sort(key=lambda spec: (spec.optimizer.moments != optimizer.moments, time(spec)))
  other = next(filter(memory.fits, others), None)
  if other is None:
    advice = "use a smaller model or shorter sequences, or more devices"
  else:
    new = {"Training.accumulation": (one.accumulation, one.accumulation if any_parts else other.accumulation),
           "Architecture.remat": (one.model.remat, other.model.remat),
           "Optimizer.moments": (optimizer.moments, other.optimizer.moments)}
    settings = ", ".join(f"{name} = {now!r}" for name, (before, now) in new.items() if before != now)
    advice = f"use {settings}, which needs {memory.text(memory.estimate(other).total)}"
  need, (there, what) = memory.estimate(least), memory.limit(least)
  return InputError(f"training a single run of {one.model.params_total:,} parameters needs about {memory.text(need.total)} "
                    f"of each {what} at least ({need}), of which {memory.text(there)} are available; {advice}")
