"""The work directory: all files of one experiment, and the check that they belong to it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Callable, Mapping
from typing import Any

from jaxsplit.checkpoint.checkpoints import Checkpoints
from jaxsplit.checkpoint.manifest import MANIFEST
from jaxsplit.errors import InputError, Interrupted
from jaxsplit.experiment.contents import check_contents
from jaxsplit.experiment.lock import Lock
from jaxsplit.files import TEMPORARY, content_hash, file_hash, read_json, write_atomic, write_json
from jaxsplit.parallel import hosts
from jaxsplit.results.config import read_config
from jaxsplit.training.metrics import Metrics
from jaxsplit.training.telemetry import Telemetry

FORMAT = 2  # Of the files of a work directory: the names in their records.
# Settings that request cells: an experiment may grow, and existing cells stay as they are.
GROWS = ("Experiment.sizes", "Experiment.line", "Experiment.seed_fractions", "Experiment.expert_fractions", "Experiment.averaged",
         "Experiment.target", "Experiment.compare", "Experiment.uneven", "Sweep")
# Settings that determine the token store. Cells and snapshots record its manifest's hash, which is compared instead.
DATA = ("Corpus", "Clustering", "Tokenization", "Store")
# Settings that are paths. The same corpus at another path is the same experiment.
WHERE = ("Corpus.path", "Tokenization.path", "Store.path", "Experiment.init_from")
# Settings on how to train or fit that do not change cells: an experiment may resume with others, for example on other
# devices, or with another law of the same cells.
HOW = ("Layout", "Training.accumulation", "Training.runs_per_map", "Training.steps_per_dispatch", "Training.save_every_steps",
       "Training.retention", "Training.trace", "Architecture.remat", "Architecture.attention", "FitSettings", *GROWS, *WHERE)
_PATTERN = "[]*?\\"  # Orbax and TensorStore write to paths with one of these, but read them as glob patterns.

_NOTES = ("made_with", "files", "checked")  # The parts of provenance.json.
_OF_A_CLAIM = ("config.gin", "config.json", "lock")  # Nothing was read or trained where there is no more.


class Workdir:
  """One experiment's files. A context manager: locked on entry, flushed to disk on exit. What is refused before anything was read or
  trained leaves nothing behind.

  Several processes may use one together: the lead (see parallel.hosts) locks and writes it; all write checkpoints.

      config.gin     the settings, for --gin_file      cells.csv     the measured cells
      config.json    every setting, resolved           probe.csv     the learning-rate probe's cells
      metrics.jsonl  every training step               ledger.json   tokens and FLOPs of each stage
      checkpoints/   snapshots                         law.json, plan.json, report.html, figures/
      store/         the tokens                        provenance.json, divergence.json, sizes.json
      telemetry.jsonl  speed and memory                trace/  profiles

  Args:
    path: the folder; made if it does not exist.
    log: gets a line for each damaged file, with the consequences.
  """

  def __init__(self, path: str | os.PathLike, log: Callable[[str], None] = print):
    self.path = pathlib.Path(path)
    self.config_hash = ""
    self.log = log
    odd = next((character for character in os.path.abspath(path) if character in _PATTERN), None)
    if odd:
      raise InputError(f"--workdir={path}: has a {odd} in its path, {os.path.abspath(path)}, from which snapshots cannot be "
                       f"read; name a folder without any of {' '.join(_PATTERN)}")
    self._before: set[str] = set()
    self._made: list[pathlib.Path] = []
    self._claimed_before: dict[str, bytes] = {}
    hosts.broadcast(self._make)
    if not os.access(self.path, os.W_OK):
      raise InputError(f"--workdir={path}: cannot be written; name a folder that can be")
    self._lock: Lock | None = None
    self._made_with = ""
    self.checkpoints = Checkpoints(self.path / "checkpoints", log)
    self.metrics = Metrics(self.path / "metrics.jsonl", log)
    self.telemetry = Telemetry(self.path / "telemetry.jsonl")

  def _make(self) -> None:
    if self.path.is_file():
      raise InputError(f"--workdir={self.path}: is a file; name a folder")
    try:
      check_contents(self.path)
      self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
      self.path.mkdir(parents=True, exist_ok=True)
      self._before = set(os.listdir(self.path))
    except OSError as error:
      raise InputError(f"--workdir={self.path}: cannot be made ({error.strerror}); name a folder that can be written") from None

  def __enter__(self) -> Workdir:
    hosts.broadcast(self._take)
    return self

  def _take(self) -> None:
    self._lock = Lock(self.path / "lock", self.log)
    for left in (*self.path.glob(f".*{TEMPORARY}"), *self.path.glob(".store.*")):  # By a process that was killed.
      shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)

  def __exit__(self, kind: type[BaseException] | None, *_) -> None:
    if self._lock and kind is not None and issubclass(kind, InputError):
      self._withdraw()
    if hosts.count() > 1 and kind is not None and kind is not Interrupted:
      return  # A snapshot in progress needs all processes, but this one is ending, and its lock with it.
    try:
      self.metrics.close()
    finally:
      try:
        self.checkpoints.close()
      finally:
        if self._lock:
          self._lock.release()

  def _withdraw(self) -> None:
    """Takes a claim back that was refused later, as where the corpus is another one: the settings of what is here are those of before.
    Removes what was made here, where that is a claim and no more. By the lock's owner."""
    for name, content in self._claimed_before.items():
      write_atomic(self.path / name, content)
    made = set(os.listdir(self.path)) - self._before
    if made.issubset(_OF_A_CLAIM):
      for name in made:
        (self.path / name).unlink(missing_ok=True)
      with contextlib.suppress(OSError):  # Another process has put something there.
        for folder in self._made:
          folder.rmdir()

  def claim(self, config: dict[str, dict[str, Any]]) -> None:
    """Makes this the work directory of one experiment, or checks that it already is.

    Args:
      config: every setting, by dataclass and field.

    Raises:
      InputError: it holds the results of other settings, which are named, or the lead has others.
    """
    text = "\n".join("".join(f"{part}.{name} = {value!r}\n" for name, value in fields.items())
                     for part, fields in config.items() if part not in ("Store", "Extension", "Base"))
    config = json.loads(json.dumps({**config, "Workdir": {"format": FORMAT}}))
    for name, value in hosts.broadcast(lambda: _flat(config)).items():
      if _flat(config).get(name) != value:
        raise InputError(f"processes of one experiment need the same settings ({name} = {value!r} in process 0, "
                         f"{_flat(config).get(name)!r} on {socket.gethostname()}); start all with the same command")
    decisive = {name: value for name, value in _flat(config).items() if not name.startswith(HOW)}
    self.config_hash = content_hash(json.dumps({k: v for k, v in decisive.items() if not k.startswith(DATA)}, sort_keys=True))
    hosts.broadcast(lambda: self._claim(config, decisive, text))
    if not (self.path / "config.json").exists():
      raise InputError(f"--workdir={self.path}: files written by process 0 are not visible on {socket.gethostname()}; name a folder "
                       "on a file system that all hosts share")

  def _claim(self, config: dict[str, Any], decisive: dict[str, Any], text: str) -> None:
    file = self.path / "config.json"
    if self._has_results():
      if not file.exists():
        raise InputError(f"--workdir={self.path}: has results but no config.json, so their settings are unknown; name another folder")
      held = _flat(read_config(self.path))
      new = next((name for name in decisive if name not in held and not name.startswith((*DATA, "Extension"))), None)
      ours = {".".join(name.split(".")[:2]) for name in decisive}  # Without the keys of a setting that is itself a mapping.
      gone = next((name for name in held if name.split(".")[0] in config and not name.startswith((*HOW, *DATA, "Extension"))
                   and ".".join(name.split(".")[:2]) not in ours), None)
      if new or gone:
        differs = f"no setting {new}" if new else f"a setting {gone} that this one lacks"
        raise InputError(f"--workdir={self.path}: was made by another version of jaxsplit, which has {differs}; use that version, or "
                         "name another folder")
      # A corpus in place of its store, or the other way round: their tokens are compared.
      other = [name for name, value in decisive.items() if held.get(name) != value and (name in held or not name.startswith(DATA))]
      if other:
        differ = "; ".join(f"{name} = {held.get(name)!r} there, {decisive[name]!r} here" for name in other)
        as_there = f"{' and '.join(other)} as there, which --gin_file={self.path / 'config.gin'} does"
        if other[0].startswith("Store."):
          as_there = "the --store that it was made with"
        raise InputError(f"--workdir={self.path}: holds another experiment's results ({differ}); to resume that experiment, give "
                         f"{as_there}; otherwise name another folder")
      if held == _flat(config):
        return
    self._claimed_before = {name: (self.path / name).read_bytes() for name in ("config.gin", "config.json") if (self.path / name).exists()}
    write_json(file, config)  # First: config.gin alone would be somebody else's.
    write_atomic(self.path / "config.gin", text)

  def _has_results(self) -> bool:
    """Whether anything was trained or measured here. The settings of an experiment that was refused before that do not count."""
    return (any(self.path.glob("*.csv")) or (self.path / "metrics.jsonl").exists()
            or any((self.path / "checkpoints").rglob(MANIFEST)))

  def record_provenance(self, facts: Mapping[str, Any]) -> str:
    """Records the provenance of cells in provenance.json. Returns the name by which cells refer to it."""
    name = content_hash(json.dumps(facts, sort_keys=True))
    hosts.broadcast(lambda: self._note("made_with", name, dict(facts)))
    self._made_with = name
    return name

  def commit(self, name: str, made_from: Mapping[str, str]) -> None:
    """Records that the file `name` is complete, with its inputs (such as other files' hashes) and its provenance."""
    self._note("files", name, {"sha256": file_hash(self.path / name), **made_from, "made_with": self._made_with})

  def is_committed(self, name: str, made_from: Mapping[str, str]) -> bool:
    """Whether the file `name` is unchanged since it was committed, from the same inputs."""
    path = self.path / name
    noted = self._notes()["files"].get(name)
    return path.exists() and isinstance(noted, dict) and {**noted, "sha256": file_hash(path), **made_from} == noted

  def once(self, name: str, check: Callable[[], None]) -> None:
    """Runs a check unless it has passed before."""
    hosts.broadcast(lambda: self._once(name, check))

  def _once(self, name: str, check: Callable[[], None]) -> None:
    if name not in self._notes()["checked"]:
      check()
      self._note("checked", name, True)

  def _notes(self) -> dict[str, dict[str, Any]]:
    path = self.path / "provenance.json"
    try:
      notes = read_json(path) if path.exists() else {}
      return {part: dict(notes.get(part, {})) for part in _NOTES}
    except (InputError, AttributeError, TypeError, ValueError) as error:
      self.log(f"{path}: damaged ({error}), so it is started anew; the records of earlier processes are lost")
      return {part: {} for part in _NOTES}

  def _note(self, part: str, name: str, value: Any) -> None:
    notes = self._notes()
    if notes[part].get(name) != value:
      notes[part][name] = value
      write_json(self.path / "provenance.json", notes)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
  if isinstance(value, dict):
    return {name: leaf for key, item in value.items() for name, leaf in _flat(item, f"{prefix}.{key}" if prefix else key).items()}
  return {prefix: value}
