"""Safetensors files: named arrays behind a JSON header (https://huggingface.co/docs/safetensors), read in place and written in shards.

Reading maps files into memory, so that a model larger than the host's memory can be read a tensor at a time.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jaxsplit.errors import InputError
from jaxsplit.files import naming_the_file, read_json, write_json

SHARD_BYTES = 5_000_000_000  # Above this, a model is written in several files.
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_HEADER = 100_000_000  # Bytes, as in the format's own library.
_DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor in a file: where its bytes begin, its dtype and shape."""

  path: pathlib.Path
  offset: int
  dtype: np.dtype
  shape: tuple[int, ...]

  def read(self) -> np.ndarray:
    """The tensor as it is in the file, mapped into memory."""
    if not math.prod(self.shape):
      return np.empty(self.shape, self.dtype)
    return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


def find_tensors(directory: pathlib.Path) -> dict[str, Tensor]:
  """The tensors of a folder with model.safetensors, or with the shards that model.safetensors.index.json names.

  Raises:
    InputError: there is none, or a file is damaged; one line names the file and what is wrong with it.
  """
  if (directory / INDEX).is_file():
    index = read_json(directory / INDEX)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, str) and pathlib.Path(file).name == file for file in files.values()):
      raise InputError(f"{directory / INDEX}: has no weight_map from tensors to files of its folder; save the model again")
    tensors = {}
    for file in sorted(set(files.values())):
      found = read_header(directory / file)
      lacks = next((name for name, where in files.items() if where == file and name not in found), None)
      if lacks is not None:
        raise InputError(f"{directory / file}: has no tensor {lacks}, which {INDEX} says it has; save the model again")
      tensors |= found
    return tensors
  if (directory / WHOLE).is_file():
    return read_header(directory / WHOLE)
  pickled = next(iter(sorted(directory.glob("pytorch_model*.bin"))), None)
  raise InputError(f"{directory}: has neither {WHOLE} nor {INDEX}" + (
      f"; {pickled.name} is a pickle, which can run code and is not read: save the model with safe_serialization=True" if pickled
      else "; name a folder that save_pretrained has written"))


def read_header(path: pathlib.Path) -> dict[str, Tensor]:
  """What one file holds. Raises InputError where the file does not hold what its header says."""
  def damaged(what: str) -> InputError:
    return InputError(f"{path}: {what}; fetch or save it again")

  try:
    size = path.stat().st_size
    with path.open("rb") as f:
      length = int.from_bytes(f.read(8), "little")
      if size < 8 or length > size - 8:
        raise damaged(f"truncated: {size:,} bytes, of which the header alone should have {8 + length:,}" if size >= 8 else
                      f"truncated: {size} bytes are no safetensors file")
      if length > _MAX_HEADER:
        raise damaged(f"its header of {length:,} bytes is larger than the {_MAX_HEADER:,} that a safetensors file may have")
      text = f.read(length)
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None
  try:
    header = json.loads(text)
    header.pop("__metadata__", None)
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
      begin, stop = map(int, entry["data_offsets"])
      shape = tuple(map(int, entry["shape"]))
      if entry["dtype"] not in _DTYPES:
        raise InputError(f"{path}: {name} has dtype {entry['dtype']}; only {', '.join(_DTYPES)} are read: save the model unquantized")
      dtype = _DTYPES[entry["dtype"]]
      if begin < 0 or min(shape, default=0) < 0 or stop - begin != math.prod(shape) * dtype.itemsize:
        raise damaged(f"{name} of {entry['dtype']} {list(shape)} has {stop - begin:,} bytes")
      if stop > size - 8 - length:
        raise damaged(f"truncated: {name} ends at byte {8 + length + stop:,}, the file has {size:,}")
      if begin != end:
        raise damaged(f"{name} begins at byte {8 + length + begin:,}, where {8 + length + end:,} is next")
      tensors[name], end = Tensor(path, 8 + length + begin, dtype, shape), stop
  except InputError:
    raise
  except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
    raise damaged("its header is not that of a safetensors file") from None
  if end != size - 8 - length:
    raise damaged(f"{size - 8 - length - end:,} bytes follow its last tensor")
  return tensors


def write_tensors(directory: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray],
                  dtype: np.dtype, shard_bytes: int = SHARD_BYTES) -> None:
  """Writes tensors as one file, or as shards and their index where they are more than `shard_bytes`.

  Args:
    directory: the folder, which is there.
    shapes: of every tensor, in the order of writing.
    read: gives a tensor by its name; one is at hand at a time.
    dtype: what they are written in.
    shard_bytes: a shard has at most as many, or one tensor.
  """
  size = lambda name: math.prod(shapes[name]) * dtype.itemsize
  shards: list[list[str]] = [[]]
  for name in shapes:
    if shards[-1] and sum(map(size, shards[-1])) + size(name) > shard_bytes:
      shards.append([])
    shards[-1].append(name)
  files = [WHOLE] if len(shards) == 1 else [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
  for file, names in zip(files, shards):
    _write_file(directory / file, {name: shapes[name] for name in names}, map(read, names), dtype)
  if len(shards) > 1:
    where = {name: file for file, names in zip(files, shards) for name in names}
    write_json(directory / INDEX, {"metadata": {"total_size": sum(map(size, shapes))}, "weight_map": where})


def _write_file(path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], arrays: Iterable[np.ndarray] | Iterator[np.ndarray],
                dtype: np.dtype) -> None:
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # What transformers asks of a file before it reads it.
  end = 0
  for name, shape in shapes.items():
    begin, end = end, end + math.prod(shape) * dtype.itemsize
    header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # Data begin at a multiple of 8 bytes.
  with naming_the_file(path), path.open("wb") as f:
    f.write(len(text).to_bytes(8, "little") + text)
    for array in arrays:
      f.write(np.ascontiguousarray(array, dtype).tobytes())
    f.flush()
    os.fsync(f.fileno())
