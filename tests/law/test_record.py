"""law.json and plan.json, damaged in every place: one line says so, and nothing that still loads breaks later."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from jaxsplit.errors import InputError
from jaxsplit.law import fit_law, load_law, load_plan, plan_split
from jaxsplit.law.forms import FORMS
from jaxsplit.registry import run_extension
from worlds import effective_cells

ODD = (None, "x", -1, 0, 2.5, True, [], {}, [[]], [None], 10**30, float("nan"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  path = tmp_path_factory.mktemp("record")
  law = fit_law(effective_cells(noise=2e-3, domains=("prose", "verse")), form="multiplicative", starts=8, bootstrap=3, profile=3)
  law.save(path / "law.json")
  plan_split(law, params=1e6, budget_tokens=4e7).save(path / "plan.json")
  return path


def places(value, trail=()):
  """Trails of keys to everything inside a JSON value; of a list, to its first entry alone."""
  inside = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
  for key, entry in inside:
    yield (*trail, key)
    yield from places(entry, (*trail, key))


def damaged(record, trail):
  """The record with the entry at `trail` left out, then replaced by odd values."""
  for odd in ("gone", *ODD):
    changed = copy.deepcopy(record)
    at = changed
    for key in trail[:-1]:
      at = at[key]
    if isinstance(odd, str) and odd == "gone":
      del at[trail[-1]]
    else:
      at[trail[-1]] = odd
    yield json.dumps(changed)


def survives(path, text, use):
  """Whether the file still loads; where it does not, that it says so in a line that names it."""
  path.write_text(text)
  try:
    use(path)
    return True
  except InputError as error:
    assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 500
    return False


def use_law(path):
  law = load_law(path)
  with np.errstate(all="ignore"):
    law.predict(1e6, 1e7, [0.0, 1e6])
  assert all(isinstance(text, str) for text in law.warnings) and set(law.intervals) <= set(law.parameters)


@pytest.mark.parametrize("name, use", [("law.json", use_law), ("plan.json", load_plan)])
def test_every_damage_is_one_line(saved, tmp_path, name, use):
  record = json.loads((saved / name).read_text())
  shallow = [trail for trail in places(record) if len(trail) < 4 or trail[0] == "members"]
  kept = {trail: [survives(tmp_path / name, text, use) for text in damaged(record, trail)] for trail in shallow}
  needed = [trail for trail in kept if len(trail) == 1 and trail != ("version",)]
  assert len(needed) >= 15 and not any(kept[trail][0] for trail in needed), "a file without a field must not load"
  assert not any(kept[("version",)])


def test_a_constant_that_was_changed_by_hand_is_told(saved, tmp_path):
  record = json.loads((saved / "law.json").read_text())
  record["parameters"]["alpha"] *= 1.01
  (tmp_path / "law.json").write_text(json.dumps(record))
  with pytest.raises(InputError, match="parameter alpha is .* what was fitted comes to .*--fix"):
    load_law(tmp_path / "law.json")


@pytest.mark.parametrize("text", ["", "null", "[" * 200_000, "{" * 200_000, '{"form": ' + "9" * 10_000 + "}", "\x00", "\ud800".encode(
    "utf-8", "surrogatepass").decode("latin-1"), '{"form": 1e999}'])
@pytest.mark.parametrize("load", [load_law, load_plan])
def test_garbage_is_one_line(tmp_path, text, load):
  assert not survives(tmp_path / "x.json", text, load)


def test_a_place_far_away_takes_no_memory(saved, tmp_path):
  record = json.loads((saved / "law.json").read_text())
  record["members"][0]["layout"]["index"][0][0] = 10**15
  assert not survives(tmp_path / "law.json", json.dumps(record), load_law)


def test_a_file_too_large_is_not_read(tmp_path):
  with open(tmp_path / "law.json", "wb") as f:
    f.truncate(1 << 30)  # sparse
  with pytest.raises(InputError, match="1024 MiB is too large for a law"):
    load_law(tmp_path / "law.json")


OWN = "import dataclasses\nfrom jaxsplit.law.forms import FORMS, add_form\nadd_form(dataclasses.replace(FORMS['chinchilla'], name='own'))\n"


def test_a_form_of_ones_own_is_there_where_its_file_is_given_as_it_was(extensions, tmp_path):
  own, named = tmp_path / "own.py", tmp_path / "law.json"
  own.write_text(OWN)
  run_extension(own)
  law = fit_law(effective_cells(), form="own", starts=8, bootstrap=0, holdout="none")
  law.save(named)
  again = load_law(named)
  assert again.parameters == law.parameters and again.predict(1e6, 1e7, 1e6) == law.predict(1e6, 1e7, 1e6)
  again.save(tmp_path / "again.json")
  assert (tmp_path / "again.json").read_bytes() == named.read_bytes()
  FORMS.origins["own"] = "of another file"
  with pytest.raises(InputError, match="law.json: form 'own' is not the one that the law was fitted with; give the file of then"):
    load_law(named)
  del FORMS["own"]
  with pytest.raises(InputError, match="law.json: FitSettings.form = 'own': there is none of that name.*--extension=FILE"):
    load_law(named)


def test_a_law_runs_no_file(saved, tmp_path):
  own, record = tmp_path / "own.py", json.loads((saved / "law.json").read_text())
  own.write_text("raise SystemExit('this must not run')\n")
  record["members"][0]["form"] = record["form"] = str(own)
  assert not survives(tmp_path / "law.json", json.dumps(record), load_law)
