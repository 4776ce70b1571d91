"""What the tests of handed-in files share: damage to bytes and to trees, and what must not come of it."""

import copy
import json
import os
import resource
import time

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from jaxsplit.errors import InputError

CASES = int(os.environ.get("JAXSPLIT_FUZZ_CASES", "25"))
SECONDS, BYTES = 5.0, 600 << 20

fuzzed = settings(max_examples=CASES, deadline=None, derandomize=True, database=None,
                  suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just([]), st.just({}), st.just(10**400), st.just(-1),
    st.just("../../etc/passwd"), st.just([[[[[]]]]]), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3))


@st.composite
def damaged_bytes(draw, good):
  data = bytearray(good)
  for _ in range(draw(st.integers(1, 4))):
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    kind = draw(st.sampled_from(("flip", "cut", "drop", "insert", "repeat")))
    if kind == "flip" and data:
      data[at] ^= 1 << draw(st.integers(0, 7))
    elif kind == "cut":
      del data[at:]
    elif kind == "drop":
      del data[at:at + draw(st.integers(1, 40))]
    elif kind == "insert":
      data[at:at] = draw(st.one_of(st.binary(max_size=20), st.sampled_from((b"\0", b"\xff\xfe", b'"', b"\n", b",,", b"[" * 5000, b"9" * 5000))))
    else:
      data[at:at] = data[max(at - 200, 0):at] * draw(st.integers(1, 5))
  return bytes(data)


@st.composite
def damaged_tree(draw, good):
  """The JSON of a tree in which one to three values are others, missing, or one too many."""
  tree = json.loads(json.dumps(good))
  for _ in range(draw(st.integers(1, 3))):
    node, parent, key = tree, None, None
    for _ in range(draw(st.integers(1, 6))):
      if isinstance(node, dict) and node:
        parent, key = node, draw(st.sampled_from(sorted(node)))
      elif isinstance(node, list) and node:
        parent, key = node, draw(st.integers(0, len(node) - 1))
      else:
        break
      node = parent[key]
    if parent is None:
      continue
    kind = draw(st.sampled_from(("other", "other", "missing", "more")))
    if kind == "missing":
      del parent[key]
    elif kind == "more" and isinstance(node, dict):
      node[draw(st.text(max_size=8))] = copy.deepcopy(draw(ODD))
    elif kind == "more" and isinstance(node, list):
      node.append(copy.deepcopy(draw(ODD)))
    else:
      parent[key] = copy.deepcopy(draw(ODD))
  return json.dumps(tree).encode()


def damaged(good):
  """Damage to a JSON text."""
  return st.one_of(damaged_bytes(good), damaged_tree(json.loads(good)))


def survives(read):
  """Calls `read`; only InputError of one line may come out, in time, without taking much memory."""
  began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  try:
    read()
  except InputError as error:
    assert "\n" not in str(error).strip() and len(str(error)) < 2000
  assert time.process_time() - began < SECONDS
  assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BYTES
