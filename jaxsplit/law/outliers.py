"""Errors with heavy tails: their kind is estimated from a table's domains, and what lies far out is drawn in.

The cells of one point, of all domains, share every error of that point's models, so what they are off by among themselves is known
apart from all else: the residuals of the domains' ratios to their mean (law.pooled_fit). Of these the width and degrees of freedom of
Student's errors are estimated by likelihood (Lange, Little & Taylor 1989, doi 10.1080/01621459.1989.10478852). Then cells are replaced by
pseudo-values, fit + psi(r) / mean psi'(r), of which least squares are the robust estimate, with its variance (Huber & Ronchetti 2009,
section 7.8). Where Student's errors are not clearly likelier than normal ones, by Schwarz's criterion, cells stay as they are.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import gammaln

from jaxsplit.law.pooled_fit import Reading, Table, ratios_of, read_domains

_DEGREES = np.array([2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0])
_WIDTHS = np.geomspace(0.3, 1.1, 27)  # Of the residuals' root mean square.
_TURNS = 6  # Of fits, then errors.
_MIDDLES = 20  # Of a point's mean, then weights.


def drawn_in(table: Table, reading: Reading) -> Table:
  """The table with pseudo-values where cells' errors have heavy tails; itself where they do not.

  Args:
    table: the mean over domains, and the domains' ratios to it.
    reading: of the table, by the form that explains it best.
  """
  known = np.isfinite(table.ratio)
  log, steady = np.where(known, table.ratio, 0.0), table
  middle = np.zeros(log.shape[1])
  for _ in range(_TURNS):
    fitted, used = ratios_of(reading, read_domains(reading, steady, reading.theta), steady)
    freedom = known.sum() - known.any(0).sum() - used
    if freedom < 2 * len(log):
      return table
    left = freedom / known.sum()  # Of a residual's variance, what the fit leaves.
    off = log - fitted - middle
    width, degrees = _errors((off - (off * known).sum(0) / known.sum(0))[known] / left**0.5)
    if np.isinf(degrees):
      return table
    reach = degrees * left * width**2
    for _ in range(_MIDDLES):
      weight = known / (1 + (log - fitted - middle) ** 2 / reach)
      middle = (weight * (log - fitted)).sum(0) / weight.sum(0)
    residual = log - fitted - middle
    far = residual**2 / reach
    slope = ((1 - far) / (1 + far) ** 2)[known].mean()
    # The mean of a point moves by what the middle of its cells is off it; ratios are to that.
    pseudo = np.where(known, fitted + residual / (1 + far) / slope, np.nan)
    steady = Table(dataclasses.replace(table.pooled, loss=table.pooled.loss * np.exp(middle)), pseudo)
  return steady


def _errors(residual: np.ndarray) -> tuple[float, float]:
  """The likeliest width and degrees of freedom of errors; infinite where normal ones do as well."""
  count, typical = len(residual), float(np.sqrt((residual**2).mean())) + 1e-12
  widths = typical * _WIDTHS[:, None]
  far = np.log1p(residual[:, None, None] ** 2 / (_DEGREES * widths**2)).sum(0)
  constant = gammaln((_DEGREES + 1) / 2) - gammaln(_DEGREES / 2) - np.log(_DEGREES * np.pi) / 2
  likelihood = count * (constant - np.log(widths)) - (_DEGREES + 1) / 2 * far
  i, j = np.unravel_index(likelihood.argmax(), likelihood.shape)
  normal = -count * (np.log(2 * np.pi * typical**2) + 1) / 2
  return (float(widths[i, 0]), float(_DEGREES[j])) if likelihood[i, j] > normal + np.log(count) / 2 else (typical, np.inf)
