"""The predict entry point: losses from a law, with intervals, or what growing compute is best spent on.

    python -m jaxsplit.predict --law=law.json --params=3e6,1e7 --seed_tokens=2e8 --expert_tokens=0,1e7 [--domain=prose] [--json]
    python -m jaxsplit.predict --law=law.json --compute_optimal --budget_flops=1e18,1e19,1e20 [--figure=optimal.svg] [--json]
"""

from __future__ import annotations

from jaxsplit import signals

signals.end_at_once(__name__)  # The imports below take seconds.

# ruff: noqa: E402
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Sequence

from jaxsplit import cli, devices
from jaxsplit.errors import InputError
from jaxsplit.files import write_atomic
from jaxsplit.law import Law, compute_optimal, load_law
from jaxsplit.law.cautions import check_reach
from jaxsplit.law.mapping import number
from jaxsplit.law.optimal import Optimum, exponents

FLAGS = {
    "law": cli.Path("the law, as written by python -m jaxsplit.fit; required"),
    "params": "sizes N, as in 3e6,1.3B",
    "seed_tokens": "seed tokens D, 0 by default; all N, D and D' are combined",
    "expert_tokens": "expert tokens D', 0 by default",
    "domain": "one of the law's domains, or all of them; their mean by default",
    "budget_flops": "compute budgets of --compute_optimal, 6 N per token",
    "num_domains": "experts that a budget pays for; the law's domains by default",
    "accounting": "what a budget counts: total (default), per_model or separate, as for the plan entry point",
    "figure": cli.Path("draw --compute_optimal to this .svg, .png or .pdf file; compute_optimal.svg, here, by default, none with --json"),
}
_FIGURE = "compute_optimal.svg"
_KINDS = "svg", "png", "pdf"
_ALIKE = 0.05  # Relative difference up to which two counts of tokens are the same level.
SWITCHES = {"compute_optimal": "for each of --budget_flops, the best N, tokens and split", "json": "print JSON"}


def main(argv: Sequence[str] | None = None) -> int:
  """Reads a law, predicts, and prints for people or, with --json, for programs."""
  flags = cli.parse("predict", __doc__, [], argv, flags=FLAGS, switches=SWITCHES).flags
  if not flags["law"]:
    raise InputError("--law is missing; give a law, as in --law=law.json")
  _check_together(flags)
  devices.present()
  law = load_law(flags["law"])
  if flags["compute_optimal"]:
    domains = _domains(flags["num_domains"]) or len(law.domains)
    optima = compute_optimal(law, _numbers(flags, "budget_flops"), domains, _accounting(flags["accounting"]))
    print(json.dumps([dataclasses.asdict(o) for o in optima], indent=1) if flags["json"] else _optimal_text(optima, law, domains))
    if flags["figure"] or not flags["json"]:
      _draw(flags["figure"] or _FIGURE, optima)
    if not flags["json"]:
      print(f"figure: {flags['figure'] or _FIGURE}")
    return 0
  rows = predictions(law, *(_numbers(flags, name) for name in ("params", "seed_tokens", "expert_tokens")), flags["domain"])
  print(json.dumps(rows, indent=1) if flags["json"] else _text(rows, law))
  return 0


def predictions(law: Law, params: Sequence[float], seed_tokens: Sequence[float], expert_tokens: Sequence[float],
                domain: str | None = None) -> list[dict]:
  """A record for every combination: N, D, D', domain, loss, and 95 % intervals of the mean and of a new run, if the law has any.

  The loss is None, without intervals, where nothing was measured of what is asked: D or D' is 0 and no cell has that, or it is
  not the only one that the cells have.

  Args:
    law: the fitted law.
    params, seed_tokens, expert_tokens: to be combined.
    domain: a name, "all" for each of the law's, or None for their mean.

  Raises:
    InputError: a model that is never trained, or a domain that the law does not know.
  """
  for counts in itertools.zip_longest(params, seed_tokens, expert_tokens):
    check_reach(law, **dict(zip(("params", "seed_tokens", "expert_tokens"), counts)))
  names = law.domains if domain == "all" and "all" not in law.domains else (domain,)
  rows = []
  for name, (n, d, x) in itertools.product(names, itertools.product(params, seed_tokens, expert_tokens)):
    if d == x == 0:
      raise InputError(f"--seed_tokens=0 and --expert_tokens=0: a model (N = {n:g}) that trains on no tokens has no prediction; give one "
                       "of them")
    known = _measured(law, "seed_tokens", d) and _measured(law, "expert_tokens", x)
    loss = float(law.mean_of_forms(n, d, x, name))
    row = {"params": n, "seed_tokens": d, "expert_tokens": x, "domain": name, "loss": loss if known else None}
    for kind in ("mean", "prediction") if known and law.members[0].samples.size else ():
      row[f"{kind}_interval"] = [float(end) for end in law.interval(n, d, x, name, kind=kind)]
    rows.append({**row, "extrapolates": _beyond(law, n, d, x)})
  return rows


def _measured(law: Law, axis: str, tokens: float) -> bool:
  """Whether the range of a law's cells allows a prediction at so many tokens."""
  low, high = law.data["ranges"][axis]
  return abs(tokens - low) <= _ALIKE * low if low == high else tokens > 0 or low == 0


def _check_together(flags: dict) -> None:
  """Refuses flags that do not apply, and a figure of an unknown format."""
  if flags["figure"] and _kind(flags["figure"]) not in _KINDS:
    raise InputError(f"--figure={flags['figure']}: name a .{', .'.join(_KINDS[:-1])} or .{_KINDS[-1]} file")
  mine, others = ("budget_flops",), ("params", "seed_tokens", "expert_tokens", "domain")
  if not flags["compute_optimal"]:
    mine, others = ("params",), ("budget_flops", "num_domains", "accounting", "figure")
  use = "--compute_optimal" if flags["compute_optimal"] else "a prediction"
  for name in mine:
    if not flags[name]:
      raise InputError(f"--{name} is missing; give numbers, as in --{name}={'1e18,1e19' if name == 'budget_flops' else '3e6,1e7'}"
                       f"{'' if flags['compute_optimal'] else ', or --compute_optimal'}")
  for name in others:
    if flags[name]:
      raise InputError(f"--{name} does not apply to {use}; leave it out"
                       f"{'' if flags['compute_optimal'] else ', or add --compute_optimal'}")


def _numbers(flags: dict, name: str) -> list[float]:
  """A flag's numbers, 0 where it is not given. They may end in K, M, B or T."""
  try:
    return [number(part, suffixes=True) for part in (flags[name] or "0").split(",")]
  except ValueError:
    raise InputError(f"--{name}={flags[name][:80]}: give numbers with commas between, as in 1e6,3e6") from None


def _domains(text: str | None) -> int | None:
  if text is None or text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31:
    return None if text is None else int(text)
  raise InputError(f"--num_domains={text[:40]}: must be a whole number from 1 on")


def _accounting(text: str | None) -> str:
  if text in (None, "total", "per_model", "separate"):
    return text or "total"
  raise InputError(f"--accounting={text[:40]}: must be total, per_model or separate")


def _beyond(law: Law, n: float, d: float, x: float) -> list[str]:
  """Which of N, D and D' are outside the measured range, and how far."""
  out = []
  for label, name, value in (("N", "params", n), ("D", "seed_tokens", d), ("D'", "expert_tokens", x)):
    low, high = law.data["ranges"][name]
    if value > high * 1.001:
      out.append(f"{label} is {value / high:.3g} times the largest measured" if high else f"no cell has {label} above 0")
    elif value < low * 0.999:
      out.append(f"{label} is below the smallest measured ({low:.3g})" if value else f"no cell has {label} = 0")
  return out


def _text(rows: Sequence[dict], law: Law) -> str:
  header = ("N", "D", "D'", "domain", "loss", "95 % of the mean", "95 % of a new run")
  lines = ["{:>12}{:>12}{:>12}  {:<16}{:>9}{:>22}{:>22}".format(*header)]
  between = lambda row, kind: "{:.4f} .. {:.4f}".format(*row[kind]) if kind in row else "-"
  for row in rows:
    loss = "-" if row["loss"] is None else f"{row['loss']:.4f}"
    lines.append(f"{row['params']:>12.4g}{row['seed_tokens']:>12.4g}{row['expert_tokens']:>12.4g}  {row['domain'] or 'mean':<16}"
                 f"{loss:>9}{between(row, 'mean_interval'):>22}{between(row, 'prediction_interval'):>22}")
  told = dict.fromkeys(f"{text}: {'the loss there is not known (-)' if row['loss'] is None else 'the law extrapolates'}"
                       for row in rows for text in row["extrapolates"])
  return "\n".join([*lines, *(f"warning: {text}" for text in (*told, *law.warnings))])


def _optimal_text(optima: Sequence[Optimum], law: Law, domains: int) -> str:
  lines = [f"{'FLOPs':>10}{'N':>12}{'95 %':>24}{'tokens':>12}{'seed':>8}{'95 %':>16}{'loss':>9}{'95 %':>20}"]
  for o in optima:
    share = "-" if o.fraction is None else f"{o.fraction:.1%}"
    shares = "-" if o.fraction_interval is None else "{:.1%} .. {:.1%}".format(*o.fraction_interval)
    sizes, losses = "{:.3e} .. {:.3e}".format(*o.params_interval), "{:.4f} .. {:.4f}".format(*o.loss_interval)
    lines.append(f"{o.budget_flops:>10.3g}{o.params:>12.3e}{sizes:>24}{o.budget_tokens:>12.4g}{share:>8}{shares:>16}"
                 f"{o.loss:>9.4f}{losses:>20}")
  if len({o.budget_flops for o in optima}) > 1:
    lines.append("N ~ C^{:.3f}, tokens ~ C^{:.3f}".format(*exponents(optima)))
  lines.append("one dense model each: the law knows of no experts" if optima[0].fraction is None else
               f"for {domains:,} domain{'s' * (domains > 1)}, each with its expert (--num_domains)")
  size, tokens = (max(o.beyond[i] for o in optima) for i in (0, 1))
  if max(size, tokens) > 1.001:
    lines.append(f"warning: the largest budget asks for {size:.3g} times the largest size and {tokens:.3g} times the most tokens "
                 "that a model was measured at: the law extrapolates")
  last = max(optima, key=lambda o: o.budget_flops)
  if last.fraction is not None and (beyond := [text for text in _beyond(law, last.params, last.seed_tokens, last.expert_tokens)
                                               if not text.startswith("N ")]):
    lines.append(f"warning: at {last.budget_flops:.3g} FLOPs {' and '.join(beyond)}")
  told = dict.fromkeys(text for o in optima for text in o.remarks)
  return "\n".join([*lines, *(f"warning: {text}" for text in (*told, *law.warnings))])


def _kind(path: str) -> str:
  """A figure's format, by its file's name."""
  return pathlib.Path(path).suffix.lower().removeprefix(".")


def _draw(path: str, optima: Sequence[Optimum]) -> None:
  # Imported here: figures are not needed to predict.
  from jaxsplit.report import law_figures, style
  target = pathlib.Path(path)
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, style.to_bytes(law_figures.compute_optimal(optima), _kind(path)))
  except OSError as error:
    raise InputError(f"--figure={path}: cannot be written ({error.strerror}); name a file that can be") from None


if __name__ == "__main__":
  cli.run(main)
