"""A law of a world of known truth, for tests of what is read off it."""

import pytest

from jaxsplit.law import fit_law
from worlds import effective_cells


@pytest.fixture(scope="session")
def law():
  """Not to be changed."""
  return fit_law(effective_cells(noise=1e-3, domains=("prose", "verse")), form="effective_data", bootstrap=100)
