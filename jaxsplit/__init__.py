"""jaxsplit: how much of a budget a shared seed should get, and how much each domain's specialist.

What the entry points do, from Python (docs/python.md). All of it is imported when it is first asked for: entry points listen to
signals before they import what takes long.
"""

import importlib

__version__ = "0.1.0"
_PUBLIC = {
    # The whole experiment, and what it leaves.
    "run": "running", "dry_run": "running", "add_domain": "adding", "add_small_models": "adding", "Result": "result",
    "load_model": "training.loading", "load_models": "training.loading", "write_report": "report.page",
    "compare_experiments": "report.side_by_side", "write_tensorboard": "report.tensorboard",
    # Its models put to use.
    "evaluate_models": "evaluating", "Evaluation": "evaluation.settings", "Routing": "evaluation.routers", "contenders_of": "report.ways",
    "export_models": "export", "Export": "export", "continue_text": "generate", "Generation": "evaluation.generation",
    "route": "generate",
    # Its settings.
    "read_settings": "train", "Settings": "experiment.settings", "Experiment": "experiment.settings", "Corpus": "data.corpus",
    "Clustering": "clustering.settings", "Tokenization": "data.tokenizer", "Phonebook": "data.phonebook", "Probe": "experiment.probe",
    "Architecture": "models.config", "Optimizer": "training.optimizer", "Training": "training.loop", "Layout": "parallel.sharding",
    "FitSettings": "law", "Sweep": "experiment.settings",
    # Its parts: sweeps; token stores; laws of anybody's table, what they predict, and plans.
    "design_sweep": "design", "list_files": "data.listing", "prepare_store": "data.preparation", "check_store": "data.preparation",
    "open_store": "data.store",
    "read_cells": "law", "fit_law": "law", "load_law": "law", "predictions": "predict", "compute_optimal": "law",
    "plan_split": "law", "PlanSettings": "law", "load_plan": "law",
    "write_law_page": "report.law_page"}
__all__ = [*_PUBLIC]


def __getattr__(name: str):
  if name not in _PUBLIC:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
