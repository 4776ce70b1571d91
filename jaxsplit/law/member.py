"""One fitted form of a law: its constants, what it predicts, and its record in law.json."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.law.constraints import Constraints, misfit
from jaxsplit.law.forms import FORMS, Form
from jaxsplit.law.points import float64
from jaxsplit.law.problem import Counts, Layout, Model

MOST_REFITS = 20_000  # of a form: all of them are evaluated together.
_BLOCK = (64, 256)  # Refits are evaluated in blocks of this many vectors and points, so that one compilation serves all; ...
_BLOCK_OF_ONE = (1, 4096)  # ... and a single vector in blocks of these.


@dataclasses.dataclass(frozen=True)
class Member:
  """One fitted form: the chosen one, or another whose held-out error leaves it in play.

  Attributes:
    model: form and options.
    layout: domains and units.
    theta: [P] the fitted vector.
    samples: [B, P] refits of resampled cells, empty without bootstrap.
    weight: its weight in plans and intervals, relative to the others'.
  """

  model: Model
  layout: Layout
  theta: np.ndarray
  samples: np.ndarray
  weight: float

  def predict(self, theta: np.ndarray, params: np.ndarray, seed: np.ndarray, expert: np.ndarray, domain: int) -> np.ndarray:
    """theta [B, P], counts [n] -> loss [B, n] of domain number `domain`."""
    out = np.zeros((len(theta), len(params)))
    if not out.size:
      return out
    vectors, points = _BLOCK if len(theta) > 1 else _BLOCK_OF_ONE
    seen = self.layout.unique_tokens[domain], self.layout.shares[domain], self.layout.rest_tokens[domain]
    counts = (params, seed, expert, *(np.full(len(params), v) for v in seen))
    model = dataclasses.replace(self.model, log=False)
    with float64():
      for i in range(0, len(theta), vectors):
        local = theta[block(i, vectors, len(theta))][:, self.layout.index[domain]]
        for j in range(0, len(params), points):
          each = block(j, points, len(params))
          x = self.layout.points(*(v[each] for v in counts))
          part = out[i:i + vectors, j:j + points]
          part[:] = np.asarray(_predict(model, local.T[:, :, None], x))[:part.shape[0], :part.shape[1]]
    return out

  def record(self) -> dict[str, Any]:
    """As it is written into law.json; `read_member` makes it again."""
    return {"form": self.model.form.name, "form_hash": FORMS.origins.get(self.model.form.name), "log": self.model.log,
            "repeats": self.model.repeats, "offsets": self.model.offsets, "fix": dict(self.model.constraints.fix),
            "tie": dict(self.model.constraints.tie), "layout": dataclasses.asdict(self.layout), "theta": self.theta,
            "samples": rounded(self.samples), "weight": self.weight}


def rounded(draws: np.ndarray) -> list[list[float]]:
  """[B, P] to six digits, as a record keeps them."""
  return [[float(f"{v:.6g}") for v in row] for row in draws.tolist()]


def block(start: int, size: int, end: int) -> np.ndarray:
  """[size] numbers from `start` on; those past the end are its last one again."""
  return np.minimum(np.arange(start, start + size), end - 1)


@functools.partial(jax.jit, static_argnames="model")
def _predict(model: Model, theta: Any, x: Counts) -> Any:
  """theta [q, B, 1], counts [n] -> [B, n]."""
  return model(theta, jax.tree.map(lambda count: count[None], x))


def read_member(m: dict[str, Any]) -> Member:
  """A member of the record's shape; what its numbers must be is checked here.

  Raises:
    ValueError: numbers that no fit writes.
    InputError: its form is not there, or not what it was.
  """
  form = _form(m["form"], m["form_hash"])
  plain, known = m["layout"], lambda tokens: tuple(np.inf if count is None else count for count in tokens)
  layout = Layout(tuple(plain["domains"]), tuple(map(tuple, plain["index"])), tuple(plain["units"]), plain["scale"],
                  tuple(plain["offsets"]), known(plain["unique_tokens"]), tuple(plain["shares"]), known(plain["rest_tokens"]))
  constraints = Constraints(tuple(m["fix"].items()), tuple(m["tie"].items()), layout.units)
  model = Model(form, m["log"], m["repeats"], tuple(m["offsets"]), constraints if constraints.names else Constraints())
  theta, widths = np.array(m["theta"], float), set(map(len, m["samples"]))
  places = sorted({i for row in layout.index for i in row})
  if not set(model.offsets) <= {"seed_offset", "expert_offset"}:
    raise ValueError(f"offsets of {form.name} are not seed_offset and expert_offset")
  if misfit(constraints, form.name, model.known) or {*m["fix"], *m["tie"]} & set(m["tie"].values()):
    raise ValueError(f"fix and tie of {form.name} do not suit it")
  if not layout.domains or {*map(len, (layout.index, layout.unique_tokens, layout.shares, layout.rest_tokens))} != {
      len(layout.domains)}:
    raise ValueError(f"layout of {form.name} needs an index, unique_tokens, shares and rest_tokens for each domain")
  if {len(row) for row in layout.index} != {len(model.parameters)} or places != list(range(len(theta))):
    raise ValueError(f"index of {form.name} does not give {len(model.parameters)} places among its {len(theta)} constants")
  if widths - {len(theta)} or len(m["samples"]) > MOST_REFITS:
    raise ValueError(f"samples of {form.name} are not at most {MOST_REFITS:,} vectors of {len(theta)} numbers")
  if len(layout.units) != 4 or len(layout.offsets) != 2 or min(layout.units) <= 0 or layout.scale <= 0 or m["weight"] <= 0:
    raise ValueError(f"units, scale, offsets or weight of {form.name} are not those of a fit")
  return Member(model, layout, theta, np.array(m["samples"], float).reshape(-1, len(theta)), m["weight"])


def _form(name: str, fitted_hash: str | None) -> Form:
  """The form that a member names, as it was when the law was fitted."""
  form = FORMS[name]
  if FORMS.origins.get(name) != fitted_hash:
    raise InputError(f"form {name!r} is not the one that the law was fitted with; give the file of then as --extension=FILE, or fit "
                     "the law again")
  return form
