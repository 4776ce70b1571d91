"""The effective number of repeated tokens.

R passes over U distinct tokens after the first are worth U R* (1 - exp(-R/R*)) fresh ones (Muennighoff et al. 2023, arXiv
2305.16264, eq. 5). With w(T; U) = T up to U tokens and U + U R* (1 - exp(-(T/U - 1)/R*)) beyond, a model whose seed read D tokens
of a mixture, of which its domain is the share p, and which then read D' tokens of that domain, has had

    D_eff  = w(p D; U) + w((1 - p) D; U_rest)        D'_eff = w(p D + D'; U) - w(p D; U)

fresh ones: what the seed has read of the domain counts against the expert's tokens as well. U_rest is what the other domains
have together, taken for one pool.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsplit.law.cells import Cells


def worth(tokens: Any, unique: Any, r_star: Any) -> Any:
  """w(tokens; unique): how many fresh tokens so many of `unique` distinct ones are worth."""
  again = jnp.maximum(tokens / unique - 1, 0)
  seen = jnp.where(again > 0, unique, 1.0)  # Where nothing is known to repeat, `unique` may be infinite, and slopes are not.
  return jnp.where(again > 0, seen * (1 + r_star * -jnp.expm1(-again / r_star)), tokens)


def mixture(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
  """[n] the share p of each row's domain in its seed's mixture, and [n] U_rest, infinite where some domain's is unknown.

  The share follows from the column `epochs`, p D = epochs U - D', and is the median over a domain's rows, those without an expert if
  there are any, as an expert's stream may have a part that is not its domain; without that column all domains of the table weigh the
  same.
  """
  names, domain = np.unique(cells.domain, return_inverse=True)
  unique = np.array([np.median(cells.unique_tokens[domain == k]) for k in range(len(names))])
  known = np.isfinite(cells.epochs) & np.isfinite(cells.unique_tokens) & (cells.seed_tokens > 0)
  seen = np.zeros(len(cells))
  seen[known] = (cells.epochs * cells.unique_tokens - cells.expert_tokens)[known] / cells.seed_tokens[known]
  alone = known & (cells.expert_tokens == 0)
  rows = (next((own for own in (alone & (domain == k), known & (domain == k)) if own.any()), None) for k in range(len(names)))
  share = np.array([1 / len(names) if own is None else np.median(seen[own]) for own in rows])
  rest = np.array([unique[np.arange(len(names)) != k].sum() if len(names) > 1 else np.inf for k in range(len(names))])
  return np.clip(share, 0, 1)[domain], rest[domain]


def passes(cells: Cells) -> np.ndarray:
  """[n] how often each model has seen the tokens that it has seen most often, 0 where nobody knows."""
  share, rest = mixture(cells)
  own = (share * cells.seed_tokens + cells.expert_tokens) / cells.unique_tokens
  return np.maximum(own, (1 - share) * cells.seed_tokens / rest)
