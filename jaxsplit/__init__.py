"""jaxsplit: how much of a budget a shared seed should get, and how much each domain's specialist.

From Python: `run`, the settings that it takes, `load_model` and `load_models`. They are imported when they are first asked for: entry points
listen to signals before they import what takes long.
"""

import importlib

__version__ = "0.1.0"
_PUBLIC = {
    "run": "running", "load_model": "training.trained", "load_models": "training.trained",
    "Settings": "experiment.settings", "Experiment": "experiment.settings",
    "Corpus": "data.corpus", "Clustering": "clustering.settings", "Tokenization": "data.tokenizer",
    "Phonebook": "data.phonebook", "Probe": "experiment.probe",
    "Architecture": "models.config", "Optimizer": "training.optimizer", "Training": "training.loop", "Layout": "parallel.sharding",
    "FitSettings": "law"}
__all__ = [*_PUBLIC]


def __getattr__(name: str):
  if name not in _PUBLIC:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
