"""Tables with a known law, for the tests of the law."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from jaxsplit.law import Cells, read_cells

TABLES = pathlib.Path(__file__).parents[3] / "shared" / "data" / "law_tables"
needs_tables = pytest.mark.skipif(not TABLES.is_dir(), reason="../shared/data/law_tables is not here")

SIZES = (1e5, 3e5, 1e6, 3e6)
SEEDS = (4e6, 8e6, 1.6e7)
EXPERTS = (0.0, 1e6, 2e6, 4e6)
SIZE, BUDGET, DOMAINS = 2e6, 4e7, 9  # What is planned for: N, tokens, K.


def effective_loss(params, seed, expert, e=1.2, a=20.0, alpha=0.3, b=150.0, beta=0.35, k=3.0, gamma=0.8):
  """The effective-data form, written without the package."""
  return e + a * params**-alpha + b * (expert + k * seed**gamma) ** -beta


def effective_cells(noise=0.0, domains=("prose",), seed=0):
  """A full grid; domain number i has E 1.2 + i/10 and k 3 + i."""
  random = np.random.default_rng(seed)
  rows = [(n, d, x, effective_loss(n, d, x, e=1.2 + i / 10, k=3.0 + i), name)
          for i, name in enumerate(domains) for n in SIZES for d in SEEDS for x in EXPERTS]
  params, seeds, experts, loss, domain = map(np.array, zip(*rows))
  return Cells.from_columns({"params": params, "seed_tokens": seeds, "expert_tokens": experts, "domain": domain,
                             "loss": loss * np.exp(noise * random.standard_normal(len(loss)))})


def measured_cells():
  """Cells of our own: seven domains, as docs/split_curves has them."""
  return read_cells(pathlib.Path(__file__).parents[2] / "docs" / "split_curves" / "seven.csv", {"role": "role", "status": "status"})
