"""The chapter that says what the report's words mean, for somebody who has read nothing else."""

from __future__ import annotations

from jaxsplit.report import html
from jaxsplit.report.album import Album
from jaxsplit.report.evidence import Evidence

_TERMS = (
    ("seed", "the model that is trained first, on the mixture of all domains"),
    ("expert", "a copy of the seed that is trained on, on one domain"),
    ("N", "parameters of a model, without embeddings"),
    ("D, D'", "tokens that the seed, and then each expert, is trained on"),
    ("split", "how a budget is divided; its share is D over the whole budget, 100 % is one model and no experts"),
    ("full pretraining, dense", "one model on the mixture with the same training compute: a split of 100 %"),
    ("loss", "nats per token of held-out text; perplexity is its exponential"),
    ("cell", "one measured loss, of a domain at one N, D and D'"),
    ("replica", "the same training again from another random start; how far replicas differ is the noise"),
    ("law", "a formula for the loss by N, D and D', fitted to the cells of small models"),
    ("95 % interval", "the splits that the cells do not tell from the best"),
    ("regret", "how much loss the recommended split may lose against the best one, as the law expects it"),
    ("target", "the size of model that is planned for; the law was fitted without it"),
)


def terms(evidence: Evidence, album: Album) -> list[str]:
  """The table."""
  return [html.table(["word", "meaning"], _TERMS)]
