"""Where the processes of one experiment meet: what flags say, or what SLURM, Open MPI or a TPU's own environment does.

JAX reads a cluster's environment by itself (`jax.distributed.initialize()`), but fails where there is none and makes a service
of one process where there is but one. So it is asked only where several processes are seen, and no backend is touched to see.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import urllib.request

from jaxsplit.errors import InputError

FLAGS = {
    "coordinator": "for several processes that train together: HOST:PORT of process 0, as 10.0.0.1:1234; without these three "
                   "flags, a TPU slice, SLURM and Open MPI are detected",
    "processes": "number of processes",
    "process": "index of this process, from 0",
}

_TPU_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/worker-network-endpoints"


@dataclasses.dataclass(frozen=True)
class Address:
  """What `jax.distributed.initialize` needs. None: as the environment says.

  Attributes:
    coordinator, processes, process: where process 0 listens, how many there are, which this one is.
    method: how JAX finds what is None; "deactivate" where nothing is.
    timeout: seconds in which all must have come.
  """

  coordinator: str | None
  processes: int | None
  process: int | None
  method: str
  timeout: int = 300

  @property
  def everyone(self) -> str:
    """Who is to come, in words."""
    if self.processes:
      return f"all {self.processes} processes, of which this is number {self.process},"
    if self.method == "slurm":
      tasks, job, nodes = (os.environ.get(name, "?") for name in ("SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID", "SLURM_STEP_NODELIST"))
      return f"all {tasks} tasks of SLURM job {job} on {nodes}"
    if self.method == "ompi":
      return f"all {os.environ.get('OMPI_COMM_WORLD_SIZE', '?')} processes of mpirun"
    return "all hosts of the TPU slice"


def find(coordinator: str | None, processes: str | None, process: str | None) -> Address | None:
  """Where to meet, by the flags or else by the environment; None for a process that is alone.

  Raises:
    InputError: flags that do not fit together.
  """
  given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    method = _method()
    return Address(None, None, None, method) if method else None
  if missing == ["--coordinator", "--process"] and processes == "1":
    return None
  if missing:
    raise InputError(f"{' and '.join(missing)} missing: --coordinator=HOST:PORT, --processes=COUNT and --process=INDEX "
                     "go together")
  host, _, port = coordinator.rpartition(":")
  if not (host and port.isdecimal() and 0 < int(port) < 65536):
    raise InputError(f"--coordinator={coordinator}: must be HOST:PORT of process 0, as 10.0.0.1:1234")
  if not (processes.isdecimal() and int(processes) > 0):
    raise InputError(f"--processes={processes}: must be how many there are, 1 or more")
  if not (process.isdecimal() and int(process) < int(processes)):
    raise InputError(f"--process={process}: must be from 0 to {int(processes) - 1}, as --processes={processes}")
  return Address(coordinator, int(processes), int(process), "deactivate") if int(processes) > 1 else None


def _method() -> str | None:
  """The name that JAX has for the environment, where that holds several processes."""
  if _number("SLURM_STEP_NUM_TASKS") > 1 and all(name in os.environ for name in (
      "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")):
    return "slurm"
  if _number("OMPI_COMM_WORLD_SIZE") > 1 and "OMPI_MCA_orte_hnp_uri" in os.environ:  # Open MPI 5 has it no more: use flags.
    return "ompi"
  if _has_tpu():
    slices = _number("MEGASCALE_NUM_SLICES")
    workers = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")  # Of Kubernetes.
    if workers is not None:
      return "gketpu" if "," in workers or slices > 1 else None
    if "," in _tpu_workers() or slices > 1:
      return "gcetpu"
  return None


def _has_tpu() -> bool:
  """Whether this host's chips will be used. JAX has set TPU_SKIP_MDS_QUERY, when it was imported, where there are none."""
  platforms = os.environ.get("JAX_PLATFORMS", "tpu")
  return "tpu" in platforms and "TPU_SKIP_MDS_QUERY" not in os.environ and importlib.util.find_spec("libtpu") is not None


def _tpu_workers() -> str:
  """The hosts of a Cloud TPU slice, separated by commas, from where JAX has them too; empty where nobody answers."""
  request = urllib.request.Request(_TPU_METADATA, headers={"Metadata-Flavor": "Google"})
  try:
    with urllib.request.urlopen(request, timeout=5) as answer:
      return answer.read(1 << 16).decode()
  except (OSError, ValueError):
    return ""


def _number(name: str) -> int:
  text = os.environ.get(name, "")
  return int(text) if text.isdecimal() else 0
