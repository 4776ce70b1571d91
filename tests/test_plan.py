"""The plan entry point."""

from __future__ import annotations

import dataclasses
import json

import pytest

from jaxsplit import plan
from jaxsplit.errors import InputError
from jaxsplit.law import Cells, fit_law, load_law, plan_split


@pytest.fixture(scope="module")
def law(tmp_path_factory):
  rows = [(n, d, x, 1.5 + 20 * n**-0.3 + 150 * (x + 3 * d**0.8) ** -0.35)
          for n in (1e5, 3e5, 1e6) for d in (4e6, 8e6, 1.6e7) for x in (0.0, 1e6, 2e6)]
  columns = dict(zip(("params", "seed_tokens", "expert_tokens", "loss"), zip(*rows)))
  path = tmp_path_factory.mktemp("law") / "law.json"
  fit_law(Cells.from_columns(columns), form="effective_data", bootstrap=20).save(path)
  return path


def test_a_plan_for_people_and_for_programs(law, tmp_path, capsys):
  argv = [f"--law={law}", "--params=1e6", "--budget_tokens=4e7", "--num_domains=5"]
  assert plan.main([*argv, f"--out={tmp_path / 'plan.json'}"]) == 0
  assert "full pretraining" in capsys.readouterr().out
  assert plan.main(["--json=yes", *argv]) == 0
  assert capsys.readouterr().out.startswith("{")
  assert plan.main([*argv, "--json"]) == 0
  record = json.loads(capsys.readouterr().out)
  assert record["seed_tokens"] + 5 * record["expert_tokens"] == pytest.approx(4e7)
  assert json.loads((tmp_path / "plan.json").read_text())["fraction"] == record["fraction"]


@pytest.mark.parametrize("argv, message", [
    (["--params=1e6"], "give one budget"),
    (["--params=1e6", "--budget_tokens=1e7"], "--num_domains is missing"),
    (["--budget=1"], "unknown flag --budget"),
    (["--params=x", "--budget_tokens=1e7"], "--params=x: must be a number, as in 3e6 or 1.2B"),
    (["--params=1e6", "--budget_tokens=1e300"], "--budget_tokens=1e+300: 6e+292 times the most that was measured"),
    (["--budget_flops=1e300"], "times the most that was measured"),
])
def test_bad_input_is_one_line(law, argv, message):
  with pytest.raises(InputError) as error:
    plan.main([f"--law={law}", *argv])
  assert message in str(error.value) and "\n" not in str(error.value)


def test_counts_may_have_suffixes(law, capsys):
  plan.main([f"--law={law}", "--params=1M", "--budget_tokens=0.04B", "--num_domains=5", "--json"])
  record = json.loads(capsys.readouterr().out)
  assert (record["params"], record["budget_tokens"]) == (1e6, 4e7)


def test_what_was_not_measured_is_no_number(law, capsys):
  plan.main([f"--law={law}", "--params=1e6", "--budget_tokens=4e7", "--num_domains=5", "--unique_tokens=1e6"])
  text = capsys.readouterr().out
  assert "no seed at all: never measured (no cell has D = 0)" in text
  assert "times over the 1e+06 distinct tokens" in text


def test_a_domain_that_an_uneven_split_costs_is_named(tmp_path, capsys):
  rows = [(n, d, x, e + 20 * n**-0.3 + b * (x + 3 * d**0.8) ** -0.35, name) for name, e, b in (("prose", 1.5, 150), ("verse", 1.2, 20))
          for n in (1e5, 3e5, 1e6) for d in (4e6, 8e6, 1.6e7) for x in (0.0, 1e6, 2e6)]
  columns = dict(zip(("params", "seed_tokens", "expert_tokens", "loss", "domain"), zip(*rows)))
  fit_law(Cells.from_columns(columns), form="effective_data", bootstrap=0).save(tmp_path / "law.json")
  plan.main([f"--law={tmp_path / 'law.json'}", "--params=1e6", "--budget_tokens=4e7", "--num_domains=9"])
  assert "uneven: the best mean loss of the same total budget; verse would do worse than at the common split" in capsys.readouterr().out


def test_a_law_without_experts_plans_nothing(tmp_path):
  rows = [(n, d, 1.5 + 20 * n**-0.3 + 150 * d**-0.35) for n in (1e5, 3e5, 1e6) for d in (4e6, 8e6, 1.6e7)]
  fit_law(Cells.from_columns(dict(zip(("params", "seed_tokens", "loss"), zip(*rows)))), bootstrap=20).save(tmp_path / "law.json")
  with pytest.raises(InputError, match="experts were never measured"):
    plan.main([f"--law={tmp_path / 'law.json'}", "--params=1e6", "--budget_tokens=4e7", "--num_domains=5"])


def test_a_missing_law():
  with pytest.raises(InputError, match="--law is missing"):
    plan.main(["--params=1e6"])
  with pytest.raises(InputError, match="no such file"):
    plan.main(["--law=none.json", "--params=1e6", "--budget_tokens=1e7"])


def test_an_uneven_split_without_what_no_cell_was_without_is_named(law):
  known = load_law(law)
  found = plan_split(known, params=1e6, budget_tokens=4e7, num_domains=5)
  assert found.seedless_loss is None and found.dense_loss is not None and not found.unmeasured
  domain, = found.domains
  seedless = dataclasses.replace(found, domains=(dataclasses.replace(domain, best_seed_tokens=0.0),))
  assert seedless.unmeasured == (domain.domain,)
  assert f"uneven: for {domain.domain} it has D = 0 or D' = 0, of which there is no cell" in plan._summary(seedless, known)
  dense = dataclasses.replace(found, domains=(dataclasses.replace(domain, best_expert_tokens=0.0),))
  assert not dense.unmeasured  # Which was measured.
