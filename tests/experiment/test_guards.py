"""Each guard at a fork: silent where all is well, tripped where one thing is not."""

import dataclasses

import numpy as np
import pytest

from jaxsplit.data.plain_tokenizers import ByteTokenizer
from jaxsplit.data.store_writer import Document, write_store
from jaxsplit.data.stream import mixture, windows
from jaxsplit.experiment import guards, tree
from jaxsplit.experiment.guards import GuardError, Identity, RunStatus
from jaxsplit.experiment.tree import Shape
from jaxsplit.models.config import Architecture
from jaxsplit.results.stages import Point
from jaxsplit.training.optimizer import NEVER, Schedule

MODEL = Architecture(head_dim=8).at(16, 1, 256, 8)
IDENTITY = Identity("data", "tokenizer", "config", 32, {"jax": "x"})
PRINTS = {"params": ["aa"], "moments": ["bb"]}


def stages(keep_moments=True):
  """A trunk to step 100, forked into two experts; a cooldown of the trunk itself from 80 to 100 too."""
  shape = Shape("s", MODEL, ("d", "e"), 1, 1e-3, 1, lambda seed, expert: (expert or seed) // 5, keep_moments, False)
  by_phase = {stage.phase: stage for stage in tree.build(shape, [Point(100, 0, "grid"), Point(100, 50, "grid")])}
  trunk = next(stage for stage in tree.build(shape, [Point(100, 50, "grid")]) if stage.phase == "trunk")
  return trunk, next(stage for stage in tree.build(shape, [Point(100, 50, "grid")]) if stage.forks), by_phase["full"]


def schedule(stage):
  runs = stage.runs
  column = lambda values: np.array(values, np.int32)
  return Schedule(np.array([r.learning_rate for r in runs], np.float32), column([r.rewarm for r in runs]), column([r.rewarm + 10 for r in runs]),
                  column([r.decay[0] for r in runs]), column([r.decay[1] for r in runs]),
                  column([NEVER] * len(runs)))


def about(stage, step=None, **changes):
  facts = guards.describe(stage, stage.steps if step is None else step, len(stage.runs), IDENTITY, PRINTS, schedule(stage), [], True, [RunStatus()])
  return facts | changes


def tripped(check, *arguments):
  with pytest.raises(GuardError) as caught:
    check(*arguments)
  assert "\n" not in str(caught.value)
  return caught.value.guard


@pytest.mark.parametrize("keep_moments", [True, False])
def test_a_planned_fork_passes_all(keep_moments):
  trunk, expert, _ = stages(keep_moments)
  parents = [about(trunk)]
  guards.check_same_inputs(trunk, parents[0], IDENTITY)
  guards.check_fork_point(expert, parents, IDENTITY)
  guards.check_before_decay(expert, parents)
  guards.check_schedule(expert, parents, schedule(expert))
  moments = "bb" if keep_moments else "00000000"
  guards.check_moments(expert, parents, keep_moments, {"params": ["aa"] * 2, "moments": [moments] * 2})


def test_a_snapshot_of_another_step_or_token_count():
  trunk, expert, _ = stages()
  assert tripped(guards.check_fork_point, expert, [about(trunk, step=99)], IDENTITY) == "fork point"
  assert tripped(guards.check_fork_point, expert, [about(trunk)], dataclasses.replace(IDENTITY, batch_tokens=64)) == "fork point"


def test_a_snapshot_whose_rate_has_fallen():
  _, expert, full = stages()
  parent = about(full)
  assert parent["runs"][0]["steps"] == 100
  assert tripped(guards.check_before_decay, expert, [parent]) == "before decay"


@pytest.mark.parametrize("change", [
    lambda s: s._replace(peak=s.peak * 2), lambda s: s._replace(decay_start=s.decay_start * 0, decay_end=s.decay_end),
    lambda s: s._replace(warmup_start=s.warmup_start + 100, warmup_end=s.warmup_end + 100)])
def test_a_schedule_that_jumps_at_the_fork(change):
  trunk, expert, _ = stages()
  assert tripped(guards.check_schedule, expert, [about(trunk)], change(schedule(expert))) == "schedule"


def test_moments_reset_must_warm_up_again():
  trunk, expert, _ = stages(keep_moments=False)
  wrong = schedule(expert)._replace(warmup_start=np.zeros(2, np.int32), warmup_end=np.full(2, 10, np.int32))
  assert tripped(guards.check_schedule, expert, [about(trunk)], wrong) == "schedule"


@pytest.mark.parametrize("field, guard", [("data", "same data"), ("tokenizer", "same tokenizer"), ("config", "same settings")])
def test_a_snapshot_of_other_inputs(field, guard):
  trunk, _, _ = stages()
  assert tripped(guards.check_same_inputs, trunk, about(trunk, **{field: "other"}), IDENTITY) == guard


def test_a_snapshot_of_another_model():
  trunk, _, _ = stages()
  other = dataclasses.asdict(dataclasses.replace(MODEL, rope_theta=5.0))
  assert tripped(guards.check_same_inputs, trunk, about(trunk, model=other), IDENTITY) == "same model"
  computed_otherwise = dataclasses.asdict(dataclasses.replace(MODEL, remat="dots", attention="dense"))
  guards.check_same_inputs(trunk, about(trunk, model=computed_otherwise), IDENTITY)


@pytest.mark.parametrize("keep, params, moments, guard", [
    (True, "aa", "00000000", "moments"), (False, "aa", "bb", "moments"), (True, "ab", "bb", "parameters")])
def test_a_fork_that_is_not_its_parent(keep, params, moments, guard):
  trunk, expert, _ = stages()
  assert tripped(guards.check_moments, expert, [about(trunk)], keep, {"params": ["aa", params], "moments": [moments] * 2}) == guard


def test_a_child_of_another_parent():
  trunk, expert, _ = stages()
  here = {"stage": trunk.name, "step": 100, "digest": "x", "runs": [["aa", "bb"]]}
  child = {"parents": [here]}
  guards.check_parents(expert, child, [here | {"digest": "written again"}])
  assert tripped(guards.check_parents, expert, child, [here | {"runs": [["aa", "cc"]]}]) == "parent"
  assert tripped(guards.check_parents, expert, child, [here | {"step": 99}]) == "parent"


def test_a_snapshot_read_back_as_something_else():
  trunk, _, _ = stages()
  guards.check_restored("x", about(trunk), {"params": ["aa", "idle"], "moments": ["bb", "idle"]})
  assert tripped(guards.check_restored, "x", about(trunk), {"params": ["ab"], "moments": ["bb"]}) == "restored"


@pytest.fixture
def store(tmp_path):
  def documents(texts):
    return [Document(ByteTokenizer().encode(t), len(t), t.encode()) for t in texts]

  valid = {"d": ["only in valid"], "e": ["held out as well"]}
  splits = [(domain, split, documents([f"{domain} document {i} " * 4 for i in range(9)] if split == "train" else valid[domain]))
            for domain in ("d", "e") for split in ("train", "valid")]
  return write_store(tmp_path / "store", ByteTokenizer(), splits, {})


def test_expert_k_reads_domain_k(store):
  _, expert, _ = stages()
  good = [windows(store, run.domain, 1, 8) for run in expert.runs]
  guards.check_streams(expert, expert.runs, good, store, 4)
  assert tripped(guards.check_streams, expert, expert.runs, good[::-1], store, 4) == "domain"
  blend = mixture(store, {"d": 1.0, "e": 1.0}, 1, 8)
  assert tripped(guards.check_streams, expert, expert.runs, [blend, good[1]], store, 4) == "domain"
  trunk, _, _ = stages()
  guards.check_streams(trunk, trunk.runs, [blend], store, 4)


def test_a_stream_of_other_tokens_than_the_store(store, monkeypatch):
  _, expert, _ = stages()
  streams = [windows(store, run.domain, 1, 8) for run in expert.runs]
  monkeypatch.setattr(type(streams[0]), "origins", lambda self, indices: [(self._domain, 0)] * len(indices))
  assert tripped(guards.check_streams, expert, expert.runs, streams, store, 4) == "domain"


def test_validation_documents_in_the_training_set(store, tmp_path):
  guards.check_disjoint(store)
  text = "seen in both"
  same = [Document(ByteTokenizer().encode(text), len(text), b"k")]
  leaky = write_store(tmp_path / "leaky", ByteTokenizer(), [("d", "train", same), ("d", "valid", same)], {})
  assert tripped(guards.check_disjoint, leaky) == "disjoint"


def test_validation_documents_in_another_domains_training_set(tmp_path):
  """The seed would have been trained on them."""
  one = lambda *texts: [Document(ByteTokenizer().encode(text), len(text), text.encode()) for text in texts]
  leaky = write_store(tmp_path / "leaky", ByteTokenizer(), [
      ("d", "train", one("of d alone", "shared", "shared")), ("d", "valid", one("held out")), ("e", "train", one("of e alone")),
      ("e", "valid", one("shared"))], {})
  with pytest.raises(GuardError, match=r"2 training documents of d are in a validation set \(that of e\)"):
    guards.check_disjoint(leaky)
