"""Where processes meet: by flags, by a cluster's environment, or nowhere."""

import pytest

from jaxsplit.errors import InputError
from jaxsplit.parallel import cluster
from jaxsplit.parallel.cluster import Address

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2",
         "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
  for name in (*SLURM, "OMPI_COMM_WORLD_SIZE", "OMPI_MCA_orte_hnp_uri", "MEGASCALE_NUM_SLICES", "TPU_PROCESS_ADDRESSES",
               "TPU_WORKER_HOSTNAMES"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(cluster, "_has_tpu", lambda: False)


def test_flags():
  assert cluster.find("10.0.0.1:1234", "4", "3") == Address("10.0.0.1:1234", 4, 3, "deactivate")
  assert cluster.find("[::1]:1234", "2", "0").coordinator == "[::1]:1234"
  assert cluster.find(None, None, None) is None
  assert cluster.find("127.0.0.1:1", "1", "0") is None


@pytest.mark.parametrize("flags, message", [
    ((None, "2", "0"), "--coordinator missing"), (("a:1", None, None), "--processes and --process missing"),
    (("a", "2", "0"), "--coordinator=a: must be HOST:PORT"), (("a:99999", "2", "0"), "HOST:PORT"),
    ((":1", "2", "0"), "HOST:PORT"),
    (("a:1", "two", "0"), "--processes=two"), (("a:1", "0", "0"), "--processes=0"), (("a:1", "2", "2"), "from 0 to 1"),
    (("a:1", "2", "-1"), "--process=-1")])
def test_flags_that_do_not_fit_together(flags, message):
  with pytest.raises(InputError, match=message) as caught:
    cluster.find(*flags)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("environment, method", [
    (SLURM, "slurm"), (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
    ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),
    ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}, "ompi"),
    ({"OMPI_COMM_WORLD_SIZE": "1"}, None)])
def test_a_cluster_is_seen_where_it_has_several_processes(monkeypatch, environment, method):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  found = cluster.find(None, None, None)
  assert (found and found.method) == method


def test_who_is_waited_for(monkeypatch):
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  assert cluster.find(None, None, None).everyone == "all 2 tasks of SLURM job 7 on node[1-2]"
  assert cluster.find("a:1", "3", "2").everyone == "all 3 processes, of which this is number 2,"


@pytest.mark.parametrize("environment, workers, method", [
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, "", "gketpu"), ({"TPU_WORKER_HOSTNAMES": "localhost"}, "x,y", None),
    ({}, "a:0:10.0.0.1,b:1:10.0.0.2", "gcetpu"), ({}, "a:0:10.0.0.1", None), ({}, "", None),
    ({"MEGASCALE_NUM_SLICES": "2"}, "a", "gcetpu")])
def test_a_tpu_slice_of_several_hosts(monkeypatch, environment, workers, method):
  monkeypatch.setattr(cluster, "_has_tpu", lambda: True)
  monkeypatch.setattr(cluster, "_tpu_workers", lambda: workers)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  found = cluster.find(None, None, None)
  assert (found and found.method) == method
