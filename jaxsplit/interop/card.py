"""The model card (README.md) of an exported model: its training data, D, D' and measured losses."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jaxsplit.models.family import ModelConfig
from jaxsplit.results.cells import Cell


def model_card(name: str, kind: str, config: ModelConfig, steps: int, cells: Sequence[Cell], domains: Sequence[str], *,
               step_tokens: int | None, base: str | None) -> str:
  """The text of a model card, with the header that the Hugging Face hub reads.

  Args:
    name, kind: of the model; "expert" on the domain of that name, "seed" of the experts, or "dense", full pretraining.
    config: its shape.
    steps: how many it was trained.
    cells: what was measured of it; the seed of the experts is not measured.
    domains: that the seed and the dense model were trained on, in order.
    step_tokens: tokens of a step; None: not known.
    base: the name of the base model that training began with; None: it began with initial weights.
  """
  mixture, later = ("all domains", "") if name in domains else ("the domains below", "; this one was added later")
  beginning = f"the base model {base}" if base else "initial weights"
  onwards = f", from {beginning}" if base else ""
  seedless = cells and not cells[0].seed_tokens
  forked = f"forked from a seed that was trained on {mixture} together{onwards}"
  origin = f"trained from {beginning}, without a seed" if seedless else forked
  about = {"expert": f"A specialist on the domain **{name}**, {origin}{later}.",
           "seed": f"The seed that the experts beside it were forked from, trained on all domains together{onwards}, before any cooldown "
                   "of its learning rate." if steps else f"The weights that the experts beside it began with, from {beginning}.",
           "dense": f"One model trained on all domains together{onwards}, with the budget of seed and experts (full pretraining)."}
  rows = [("domains", ", ".join(domains)), ("parameters", f"{config.params_total:,}, {config.params:,} of them outside the embeddings"),
          ("context", f"{config.sequence_length:,} tokens"), ("steps", f"{steps:,}")]
  if kind != "expert" and step_tokens:
    rows.append(("D, tokens", f"{steps * step_tokens:,}"))
  elif cells:
    rows += [("D, tokens of the seed", f"{cells[0].seed_tokens:,}"), ("D', tokens of the expert", f"{cells[0].expert_tokens:,}")]
  if cells:
    rows += [("peak learning rate", f"{cells[0].learning_rate:g}"), ("tokens a step", f"{cells[0].batch_tokens:,}")]
  header = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["jaxsplit", kind]}
  lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", "", f"# {name}", "", about[kind], "",
           "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows), ""]
  if cells:
    lines += ["Held-out loss:", "", "| domain | nats per token | bits per byte |", "|---|---|---|",
              *(f"| {cell.domain} | {cell.loss:.4f} | {cell.bits_per_byte:.4f} |" for cell in cells), ""]
  if config.document_masking:
    lines += ["It was trained on documents packed into windows, attention kept inside each: give it one document at a time, and no "
              "end-of-document token before it, which it never saw in training.", ""]
  lines.append("Made by `python -m jaxsplit.export`.")
  return "\n".join(lines) + "\n"
