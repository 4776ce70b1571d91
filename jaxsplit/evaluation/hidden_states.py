"""Documents as vectors by a seed model: the mean of its last hidden states over their tokens.

What "hidden_states" in Clustering.features stands for; entry points that cluster import this file. Cluster-BTM's features are of
words (docs/clustering.md); these are of the model that is forked into experts.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxsplit.clustering.features import FEATURES
from jaxsplit.clustering.settings import Clustering
from jaxsplit.errors import InputError
from jaxsplit.files import read_json, write_json

_WINDOWS = 64  # Of a document's tokens that are computed at a time.
_MAP, _MEAN = "model.json", "mean.npy"


class HiddenStates:
  """Fits maps that subtract the mean over documents, which is most of a hidden state, and scale to length 1.

  Args:
    workdir: of the experiment whose seed computes them.
  """

  def __init__(self, workdir: str):
    self._workdir = workdir

  def fit(self, documents: Sequence[str], seed: int) -> HiddenStateMap:
    model = _Model(self._workdir)
    return HiddenStateMap(model, model.means(documents).mean(0))

  def load(self, folder: pathlib.Path) -> HiddenStateMap:
    try:
      model, mean_D = _Model(self._workdir), np.load(folder / _MEAN, allow_pickle=False)
    except (OSError, ValueError) as error:
      raise InputError(f"{folder}: not the feature map that was saved ({error}); fit the clusters again") from None
    if read_json(folder / _MAP) != model.identity:
      raise InputError(f"{folder}: these clusters were fitted on the hidden states of another model than that of {self._workdir}; "
                       "fit them again")
    return HiddenStateMap(model, mean_D)


class HiddenStateMap:
  """Texts -> vectors [n, D] of length 1, where D is the model's width."""

  def __init__(self, model: _Model, mean_D: np.ndarray):
    self._model, self._mean_D = model, mean_D

  def apply(self, documents: Sequence[str]) -> np.ndarray:
    x_NxD = self._model.means(documents) - self._mean_D
    return x_NxD / np.maximum(np.linalg.norm(x_NxD, axis=1, keepdims=True), 1e-12)

  def save(self, folder: pathlib.Path) -> None:
    write_json(folder / _MAP, self._model.identity)
    np.save(folder / _MEAN, self._mean_D)


class _Model:
  """The seed of an experiment, and what tells it from others: its tokens' tokenizer, its shape and its steps."""

  def __init__(self, workdir: str):
    import jax  # What follows takes seconds to import, and most clusters need no model.
    import jax.numpy as jnp

    from jaxsplit import load_model

    self._model = model = load_model(workdir)
    self.identity = {"tokenizer": model.tokenizer.fingerprint, "model": repr(model.config), "steps": model.steps,
                     "weights": float(sum(np.abs(np.asarray(leaf, np.float64)).sum() for leaf in jax.tree.leaves(model.params)))}

    def sums(params, tokens_BxT, counted_BxT):
      x_BxTxD, _ = model.config.apply(params, tokens_BxT, model.tokenizer.end_of_document)
      return jnp.einsum("btd,bt->bd", x_BxTxD.astype(jnp.float32), counted_BxT)

    self._sums = jax.jit(sums)

  def means(self, documents: Sequence[str]) -> np.ndarray:
    """The mean of the hidden states of each document, float32 [n, D]; 0 for one without tokens."""
    length, width = self._model.config.sequence_length, self._model.config.width
    encoded = [encoding.ids for encoding in self._model.tokenizer.encode_batch(documents)]
    windows = [(i, ids[first:first + length]) for i, ids in enumerate(encoded) for first in range(0, len(ids), length)]
    sums_NxD = np.zeros((len(documents), width), np.float32)
    for first in range(0, len(windows), _WINDOWS):
      batch = windows[first:first + _WINDOWS]
      tokens_BxT, counted_BxT = np.zeros((_WINDOWS, length), np.int32), np.zeros((_WINDOWS, length), np.float32)
      for row, (_, ids) in enumerate(batch):
        tokens_BxT[row, :len(ids)], counted_BxT[row, :len(ids)] = ids, 1
      sums = np.asarray(self._sums(self._model.params, tokens_BxT, counted_BxT))
      np.add.at(sums_NxD, [document for document, _ in batch], sums[:len(batch)])
    return sums_NxD / np.maximum([len(ids) for ids in encoded], 1)[:, None].astype(np.float32)


def _features(settings: Clustering) -> HiddenStates:
  if not pathlib.Path(settings.model, "config.json").is_file():
    raise InputError(f"Clustering.model = {settings.model!r}: no work directory of an experiment (config.json is missing)")
  return HiddenStates(settings.model)


FEATURES.add("hidden_states", _features)
