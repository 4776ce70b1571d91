"""Held-out loss of the runs of a stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsplit.data.stream import Windows
from jaxsplit.evaluation.likelihood import Measure, compile_log_probabilities, log_probabilities
from jaxsplit.training.stack import StackSpec, State


def held_out(
    spec: StackSpec, state: State, windows: Sequence[Sequence[Windows]], exact_match: bool = False) -> dict[str, np.ndarray]:
  """Each run's mean loss on its own sets of windows.

  Args:
    spec, state: the stack.
    windows: [R][M] sets of windows [V, T + 1]; V may differ between sets. All have weights or none has.
    exact_match: also count the windows whose every target of positive weight is the most likely token.

  Returns:
    float64 [R, M] each: `loss` in nats per target, weighted, and, if asked for, `exact` as a share of the windows.
  """
  most = max(len(one.tokens) for sets in windows for one in sets)
  means: dict[str, list[np.ndarray]] = {}
  for column in zip(*windows, strict=True):  # One set for every run at a time: one program serves any M.
    tokens, weights = (np.stack([_filled(part, most) for part in parts]) for parts in zip(*map(_weighted, column)))
    found = log_probabilities(spec, state["params"], tokens, weights, _measures(exact_match))
    counted = np.sum(np.broadcast_to(weights, tokens[..., 1:].shape), axis=(1, 2), dtype=np.float64)
    means.setdefault("loss", []).append(-found["total"].astype(np.float64) / counted)
    if exact_match:
      hits = [np.mean(greedy[:len(one.tokens)]) for greedy, one in zip(found["greedy"], column)]
      means.setdefault("exact", []).append(np.array(hits))
  return {name: np.stack(columns, axis=1) for name, columns in means.items()}


def compile_held_out(spec: StackSpec, windows: int, exact_match: bool = False) -> None:
  """Compiles what `held_out` runs for sets of at most `windows` windows."""
  compile_log_probabilities(spec, windows, _measures(exact_match))


def _measures(exact_match: bool) -> tuple[Measure, ...]:
  return ("total", "greedy") if exact_match else ("total",)


def _weighted(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
  """Tokens and weights [V, T], or, where all targets count the same, [V, 1]."""
  return windows.tokens, np.ones((len(windows.tokens), 1), np.float32) if windows.weights is None else windows.weights


def _filled(rows: np.ndarray, most: int) -> np.ndarray:
  """The rows, and rows of zeros up to as many as `most`."""
  return np.pad(rows, ((0, most - len(rows)), (0, 0)))
