"""--dry_run: what would be trained is what is trained, and nothing is."""

import re

import pytest
from small import arguments

from jaxsplit import train
from jaxsplit.results.stages import read_stages, totals

LINE = re.compile(r"^  (\w+(?:, \w+)?) +([\d,]+) tokens +(\S+) FLOPs$", re.MULTILINE)


def ledger(said):
  return {name: (int(tokens.replace(",", "")), float(flops)) for name, tokens, flops in LINE.findall(said)}


def test_its_ledger_is_that_of_the_experiment(corpus, finished, tmp_path, capsys):
  assert train.main(arguments(corpus, tmp_path / "w", "--dry_run")) == 0
  said = capsys.readouterr().out
  expected, found = ledger(said), {total.name: total for total in totals(read_stages(finished / "ledger.json"))}
  grid = [name for name in found if name.startswith("grid")]
  assert len(grid) >= 3
  for name in grid:
    assert expected[name][0] == found[name].tokens and abs(expected[name][1] / found[name].flops - 1) < 1e-5
  assert expected["proof, full"][0] == found["proof, full"].tokens
  assert re.search(r"^memory: at most .* of each device", said, re.MULTILINE)
  whole, training, compiling, beside = map(float, re.search(
      r"^time: (\d+) s in all: (\d+) s of training .* up to (\d+) s of compilation .*; (\d+) s for snapshots, the law and the report$", said,
      re.MULTILINE).groups())
  assert whole == pytest.approx(training + compiling + beside, abs=2) and beside > 10
  assert re.search(r"^ +experts-\d[\d-]*/\S+: \d+ runs x \d+ steps, from trunk/", said, re.MULTILINE)
  assert not {path.name for path in (tmp_path / "w").iterdir()} & {"cells.csv", "sizes.json", "sweep.json", "ledger.json", "metrics.jsonl"}


@pytest.mark.long
def test_a_sweep_is_shown_with_its_price(corpus, tmp_path, capsys):
  argv = [flag for flag in arguments(corpus, tmp_path / "w", "--gin.Experiment.target=(32, 2)", "--gin.Sweep.flops=1.5", "--dry_run")
          if not re.search("sizes|fractions", flag)]
  assert train.main(argv) == 0
  said = capsys.readouterr().out
  price, final = re.search(r"^the sweep costs ([\d.]+)% of the final training, (\S+) FLOPs$", said, re.MULTILINE).groups()
  grid = sum(flops for name, (_, flops) in ledger(said).items() if name.startswith("grid"))
  assert abs(grid / float(final) - float(price) / 100) < 1e-3 and float(price) <= 150
  assert f"for {price}% of the final training's FLOPs" in said and not (tmp_path / "w" / "sweep.json").exists()
