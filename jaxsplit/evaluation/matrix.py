"""The matrix of models by domains: mean loss, perplexity and bits per byte on whole documents, with standard errors over documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxsplit.columns import aligned
from jaxsplit.evaluation.documents import Document


@dataclasses.dataclass(frozen=True)
class MatrixRow:
  """One model, or one way to choose among models, on every domain: lists [K], in the order of `Matrix.domains`.

  Standard errors are None where a domain has a single document; bits per byte where the tokenizer has no text.

  Attributes:
    name, kind: which, and what it is: expert, seed, dense, average (of the experts' parameters), model or router.
    loss, loss_stderr: nats per token.
    perplexity, perplexity_stderr: exp(loss), per token.
    bits_per_byte, bits_per_byte_stderr: of UTF-8 text.
  """

  name: str
  kind: str
  loss: tuple[float, ...]
  loss_stderr: tuple[float | None, ...]
  perplexity: tuple[float, ...]
  perplexity_stderr: tuple[float | None, ...]
  bits_per_byte: tuple[float | None, ...]
  bits_per_byte_stderr: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True)
class Matrix:
  """Models by domains.

  Attributes:
    split: what was read: test or valid.
    context, stride: T, and by how many tokens the windows of a long document move on.
    domains: K names.
    documents, tokens, bytes: of each domain: how many documents, their tokens and their UTF-8 bytes (None without text).
    rows: the models.
  """

  split: str
  context: int
  stride: int
  domains: tuple[str, ...]
  documents: tuple[int, ...]
  tokens: tuple[int, ...]
  bytes: tuple[int | None, ...]
  rows: tuple[MatrixRow, ...]


def matrix(documents: Sequence[Document], log_likelihoods: np.ndarray, names: Sequence[str], kinds: Sequence[str], *, split: str,
           context: int, stride: int) -> Matrix:
  """The matrix.

  Args:
    documents: [S], those of a domain side by side.
    log_likelihoods: float64 [R, S], of each row and document, in nats.
    names, kinds: of the rows.
    split, context, stride: see Matrix.
  """
  of = [document.domain for document in documents]
  domains = list(dict.fromkeys(of))
  parts = [slice(of.index(domain), of.index(domain) + of.count(domain)) for domain in domains]
  counts = np.array([document.targets for document in documents], np.float64)
  textual = all(document.bytes is not None for document in documents)
  sizes = np.array([document.bytes for document in documents], np.float64) if textual else None
  rows = []
  for name, kind, log_likelihood_S in zip(names, kinds, log_likelihoods, strict=True):
    per_token = [ratio(-log_likelihood_S[part], counts[part]) for part in parts]
    per_byte = [ratio(-log_likelihood_S[part] / np.log(2), sizes[part]) if textual else (None, None) for part in parts]
    perplexity = [np.exp(loss) for loss, _ in per_token]
    errors = [None if error is None else one * error for one, (_, error) in zip(perplexity, per_token)]
    rows.append(MatrixRow(
        name, kind, *map(tuple, zip(*per_token)), tuple(map(float, perplexity)),
        tuple(None if error is None else float(error) for error in errors), *map(tuple, zip(*per_byte))))
  total = lambda values: tuple(int(values[part].sum()) for part in parts)
  return Matrix(split, context, stride, tuple(domains), tuple(part.stop - part.start for part in parts), total(counts),
                total(sizes) if textual else (None,) * len(parts), tuple(rows))


def ratio(values: np.ndarray, weights: np.ndarray) -> tuple[float, float | None]:
  """sum(values) / sum(weights) over documents, and its standard error; None where there is one document.

  The error is that of a ratio of means of documents drawn at random (Cochran, Sampling Techniques, 1977, section 6.4).
  """
  mean, count = values.sum() / weights.sum(), len(values)
  if count < 2:
    return float(mean), None
  return float(mean), float(np.sqrt(np.sum((values - mean * weights) ** 2) * count / (count - 1)) / weights.sum())


def table(found: Matrix, measure: str) -> list[str]:
  """Lines for people: a row a model, a column a domain; `measure` is a name of MatrixRow's."""
  cell = lambda value, error: "-" if value is None else rounded(value, 4) + (f" ±{rounded(error, 2)}" if error is not None else "")
  named = lambda row: row.name if row.name == row.kind else f"{row.name} ({row.kind})"
  return aligned([("", *found.domains), *(
      (named(row), *map(cell, getattr(row, measure), getattr(row, f"{measure}_stderr"))) for row in found.rows)])


def rounded(value: float, digits: int) -> str:
  """The number with so many digits, the last ones too where they are zeros."""
  return f"{value:#.{digits}g}".rstrip(".")
