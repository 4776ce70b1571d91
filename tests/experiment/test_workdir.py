"""The work directory: one process at a time, one experiment, nothing left lying about."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import textwrap

import pytest

from jaxsplit.errors import InputError
from jaxsplit.experiment.workdir import FORMAT, Workdir

CONFIG = {"Experiment": {"seed": 1}, "Layout": {"devices": 1}, "Training": {"batch_sequences": 2, "save_every_steps": 5}}


def test_a_second_process_is_refused_and_a_dead_one_is_not(tmp_path):
  holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(f"""
      import fcntl, os, time
      f = open({str(tmp_path / 'lock')!r}, "a+"); fcntl.flock(f, fcntl.LOCK_EX)
      f.write(f"process {{os.getpid()}} on here"); f.flush(); print("locked", flush=True); time.sleep(60)""")], stdout=subprocess.PIPE)
  try:
    assert holder.stdout.readline() == b"locked\n"
    with pytest.raises(InputError, match=f"in use by process {holder.pid} on here"):
      with Workdir(tmp_path):
        pass
  finally:
    holder.kill()
    holder.wait()
  with Workdir(tmp_path):
    with pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
      with Workdir(tmp_path):
        pass
  with Workdir(tmp_path):
    pass


def test_where_there_are_no_locks_it_says_so_and_leaves_nothing_that_locks_for_good(tmp_path, monkeypatch):
  def none(*_):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

  monkeypatch.setattr(fcntl, "flock", none)
  for _ in range(2):  # The first is as one that was killed: it gives nothing back.
    said = []
    Workdir(tmp_path, said.append).__enter__()
    assert len(said) == 1 and "this file system has no locks" in said[0]
  monkeypatch.undo()
  with Workdir(tmp_path):
    pass


def test_only_settings_that_say_how_may_change(tmp_path):
  with Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG)
    first = workdir.config_hash
  (tmp_path / "metrics.jsonl").write_text("{}")
  with Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG | {"Layout": {"devices": 8}, "Training": {"batch_sequences": 2, "save_every_steps": 9}})
    assert workdir.config_hash == first
    with pytest.raises(InputError, match="Training.batch_sequences = 2 there, 4 here"):
      workdir.claim(CONFIG | {"Training": {"batch_sequences": 4}})


def test_a_work_directory_of_another_version_is_refused(tmp_path):
  with Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG)
    (tmp_path / "metrics.jsonl").write_text("{}")
    with pytest.raises(InputError, match="was made by another version of jaxsplit, which has no setting Optimizer.name; use that version"):
      workdir.claim(CONFIG | {"Optimizer": {"name": "adamw"}})
    with pytest.raises(InputError, match="has a setting Training.batch_sequences that this one lacks; use that version"):
      workdir.claim(CONFIG | {"Training": {}})


def test_a_changed_extension_is_another_experiment(tmp_path):
  of = lambda origin: CONFIG | {"Extension": {"Optimizer.name": origin}}
  with Workdir(tmp_path) as workdir:
    workdir.claim(of("a"))
    (tmp_path / "metrics.jsonl").write_text("{}")
    workdir.claim(of("a"))
    with pytest.raises(InputError, match="Extension.Optimizer.name = 'a' there, 'b' here"):
      workdir.claim(of("b"))


def test_what_is_made_of_the_cells_may_change_and_is_recorded(tmp_path):
  law = {"FitSettings": {"form": "auto", "bootstrap": 1000}}
  with Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG | law | {"Experiment": {"seed": 1, "compare": [1.0]}})
    first = workdir.config_hash
    (tmp_path / "cells.csv").write_text("")
    other = CONFIG | {"FitSettings": {"form": "additive", "bootstrap": 0}, "Experiment": {"seed": 1, "compare": [0.5, 1.0]}}
    workdir.claim(other)
    assert workdir.config_hash == first
    assert json.loads((tmp_path / "config.json").read_text()) == other | {"Workdir": {"format": FORMAT}}
    assert (tmp_path / "config.gin").read_text().endswith("\n\nFitSettings.form = 'additive'\nFitSettings.bootstrap = 0\n")
    with pytest.raises(InputError, match="Experiment.seed = 1 there, 2 here"):
      workdir.claim(other | {"Experiment": {"seed": 2, "compare": [1.0]}})


def test_where_the_corpus_lies_is_no_setting_and_what_may_grow_may(tmp_path):
  data = lambda path, fraction=0.1: {"Corpus": {"path": path, "valid_fraction": fraction}, "Tokenization": {"path": f"{path}.json"}}
  wanted = lambda *sizes: {"Experiment": {"seed": 1, "sizes": sizes, "target": sizes[-1], "seed_fractions": sizes[0]}}
  with Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG | data("corpus") | wanted([8, 1]))
    first = workdir.config_hash
    (tmp_path / "cells.csv").write_text("")
    workdir.claim(CONFIG | data("/elsewhere/corpus/") | wanted([16, 1], [8, 1]))
    assert workdir.config_hash == first
    with pytest.raises(InputError, match="valid_fraction = 0.1 there, 0.2 here.* to resume that experiment, give Corpus.valid_fraction as there"):
      workdir.claim(CONFIG | data("corpus", 0.2) | wanted([8, 1]))
    for same in ({"Store": {"manifest_hash": "a"}}, data("corpus")):
      workdir.claim(CONFIG | same | wanted([8, 1]))
      assert workdir.config_hash == first
    workdir.claim(CONFIG | {"Store": {"manifest_hash": "a"}} | wanted([8, 1]))
    with pytest.raises(InputError, match="Store.manifest_hash = 'a' there, 'b' here"):
      workdir.claim(CONFIG | {"Store": {"manifest_hash": "b"}} | wanted([8, 1]))


def test_settings_that_are_refused_after_the_claim_do_not_stay(tmp_path):
  claimed = lambda path: CONFIG | {"Corpus": {"path": path, "valid_fraction": 0.1}}
  with Workdir(tmp_path) as workdir:
    workdir.claim(claimed("corpus"))
  (tmp_path / "cells.csv").write_text("")
  before = [(tmp_path / name).read_bytes() for name in ("config.gin", "config.json")]
  with pytest.raises(InputError, match="the corpus has changed"), Workdir(tmp_path) as workdir:
    workdir.claim(claimed("another"))
    (tmp_path / ".store.parts").mkdir()  # What was read meanwhile.
    raise InputError("the corpus has changed")
  assert [(tmp_path / name).read_bytes() for name in ("config.gin", "config.json")] == before


@pytest.mark.parametrize("character", "[]*?\\")
def test_a_path_that_snapshots_cannot_be_read_back_from_is_refused(tmp_path, monkeypatch, character):
  odd = tmp_path / f"a{character}b"
  with pytest.raises(InputError) as caught:
    Workdir(odd / "w")
  assert f"has a {character} in its path" in str(caught.value) and not odd.exists()
  odd.mkdir()
  monkeypatch.chdir(odd)
  with pytest.raises(InputError, match="in its path"):
    Workdir("w")


def test_an_experiment_that_was_refused_before_it_trained_holds_no_folder(tmp_path):
  other = CONFIG | {"Training": {"batch_sequences": 4}}
  with Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG)
    workdir.claim(other)
    assert json.loads((tmp_path / "config.json").read_text()) == other | {"Workdir": {"format": FORMAT}}
    assert "Training.batch_sequences = 4\n" in (tmp_path / "config.gin").read_text()
    (tmp_path / "cells.csv").write_text("")
    with pytest.raises(InputError, match="batch_sequences = 4 there, 2 here"):
      workdir.claim(CONFIG)


def test_results_without_their_settings_are_nobodys(tmp_path):
  (tmp_path / "checkpoints" / "stage" / "8").mkdir(parents=True)
  with Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG)
  (tmp_path / "config.json").unlink()
  (tmp_path / "checkpoints" / "stage" / "8" / "snapshot.json").write_text("{}")
  with Workdir(tmp_path) as workdir, pytest.raises(InputError, match="no config.json, so their settings are unknown"):
    workdir.claim(CONFIG)


def test_what_a_killed_process_left_is_removed(tmp_path):
  (tmp_path / ".cells.csv.abc.tmp").write_text("half")
  (tmp_path / ".store.abc").mkdir()
  (tmp_path / ".notes").write_text("the user's")
  with Workdir(tmp_path):
    assert sorted(p.name for p in tmp_path.iterdir()) == [".notes", "lock"]


def test_a_seal_breaks_with_its_file_or_its_origin(tmp_path):
  with Workdir(tmp_path) as workdir:
    (tmp_path / "law.json").write_text("{}")
    workdir.commit("law.json", {"cells": "a"})
    assert workdir.is_committed("law.json", {"cells": "a"}) and not workdir.is_committed("law.json", {"cells": "b"})
    (tmp_path / "law.json").write_text("{ }")
    assert not workdir.is_committed("law.json", {"cells": "a"})


def test_damaged_provenance_is_said_and_begun_anew(tmp_path):
  said = []
  (tmp_path / "provenance.json").write_text('{"files": 3}')
  with Workdir(tmp_path, said.append) as workdir:
    workdir.record_provenance({"jax": "x"})
  assert len(said) == 1 and "provenance.json" in said[0]


def test_a_folder_that_cannot_be_made_or_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot be made"):
    Workdir(tmp_path / "file" / "w")


@pytest.mark.parametrize("theirs, named", [
    (["photos/a.jpg", "table.csv"], r"\(photos, table.csv\)"), (["cells.csv", "a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"], "a.jsonl, b.jsonl, c.jsonl and 1 more"),
    (["config.json", "model.safetensors"], r"\(config.json, model.safetensors\)"), (["config.gin", "notes.txt"], r"\(config.gin\)")])
def test_a_folder_of_other_files_is_refused_and_left_as_it_was(tmp_path, theirs, named):
  for name in theirs:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"model_type": "llama"}')
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(InputError, match=f"holds what is no experiment's .*{named}.*; name another --workdir") as caught:
    Workdir(tmp_path)
  assert "\n" not in str(caught.value) and sorted(tmp_path.rglob("*")) == before


def test_what_users_keep_in_a_work_directory_is_no_hindrance(tmp_path):
  for name in (".notes", "mine.gin", "train.log", "notes.txt", "README.md"):
    (tmp_path / name).write_text("")
  for name in ("store", "lost+found"):
    (tmp_path / name).mkdir()
  with Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG)
  (tmp_path / "results.parquet").write_text("")  # Beside an experiment, anything may lie.
  with Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG)
  (tmp_path / "config.json").write_text('{"Exper')  # Damaged, it was an experiment's all the same.
  Workdir(tmp_path)
  (tmp_path / "metrics.jsonl").write_text("")
  with pytest.raises(InputError, match="config.json:1: not JSON .*; it held the settings of the results beside it: restore it"), Workdir(
      tmp_path) as workdir:
    workdir.claim(CONFIG)


def test_a_damaged_config_of_nobodys_is_not_written_over(tmp_path):
  (tmp_path / "config.json").write_text("mine")
  (tmp_path / "a.txt").write_text("")
  with pytest.raises(InputError, match=r"holds what is no experiment's \(config.json\)"):
    Workdir(tmp_path)


def test_a_refused_claim_leaves_nothing_behind(tmp_path):
  def refused(path, *made):
    with pytest.raises(InputError, match="no"), Workdir(path) as workdir:
      workdir.claim(CONFIG)
      for name in made:
        (path / name).mkdir()
      raise InputError("no")

  refused(tmp_path / "new" / "w")
  assert not list(tmp_path.iterdir())
  (tmp_path / "cells.csv").write_text("theirs")
  with Workdir(tmp_path) as workdir, pytest.raises(InputError, match="no config.json"):
    workdir.claim(CONFIG)
  (tmp_path / "lock").unlink()
  with pytest.raises(InputError, match="no config.json"), Workdir(tmp_path) as workdir:
    workdir.claim(CONFIG)
  assert [path.name for path in tmp_path.iterdir()] == ["cells.csv"]
  refused(tmp_path / "w", "store")
  assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["config.gin", "config.json", "lock", "store"], "it can go on"
  refused(tmp_path / "w")
  assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["config.gin", "config.json", "lock", "store"]
