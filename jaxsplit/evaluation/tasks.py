"""Zero-shot tasks: how a row of a data set becomes a question, and where its rows are found.

A task is a function from a row, as the Hugging Face hub has it, to a `Question`; `TASKS` has them by lm-evaluation-harness's names
(benchmarks.py) and takes those of extensions. The rows of a task lie in `<task>.jsonl` or `<task>.jsonl.gz`, or in a library.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxsplit.data.parsing import decoded
from jaxsplit.data.unpacking import check_no_pointer, unpacked
from jaxsplit.errors import InputError
from jaxsplit.evaluation.libraries import LIBRARIES, library_rows
from jaxsplit.registry import Registry, raised_by_extension

SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclasses.dataclass(frozen=True)
class Question:
  """One row of a task.

  Attributes:
    prompt: what the choice of an expert may depend on: the question, without any answer.
    contexts: what stands before each of the C continuations.
    continuations: [C], scored behind their contexts; they begin with the space that parts them, if one does.
    sizes: [C], by what log-likelihoods are divided for `acc_norm`: the answers' characters.
    gold: the right one, from 0.
    unconditional: the context in place of the question for `acc_uncond`.
  """

  prompt: str
  contexts: tuple[str, ...]
  continuations: tuple[str, ...]
  sizes: tuple[int, ...]
  gold: int
  unconditional: str = ""

  @property
  def is_completion(self) -> bool:
    """Whether there is nothing to choose: right is the answer that greedy decoding gives."""
    return len(self.continuations) == 1


TaskFunction = Callable[["Row"], Question]
TASKS: Registry[TaskFunction] = Registry("--tasks")


class Row(dict[str, Any]):
  """A row by its fields. A field that is missing, or null, is an InputError."""

  def __getitem__(self, field: str) -> Any:
    if self.get(field) is None:
      there = "null" if field in self else f"missing; there are {', '.join(map(repr, self)) or 'none'}"
      raise InputError(f"field {field!r} is {there}; mend the row")
    return super().__getitem__(field)

  def text(self, field: str) -> str:
    """A field that is a text; another is an InputError."""
    return _text(self[field], f"field {field!r} is")

  def texts(self, field: str) -> list[str]:
    """A field that is a list of texts; another is an InputError."""
    values = self[field]
    if not isinstance(values, list):
      raise InputError(f"field {field!r} is of type {type(values).__name__}, where a list of texts is needed; mend the row")
    return [_text(value, f"field {field!r} has a value") for value in values]

  def part(self, field: str) -> Row:
    """A field that has fields itself; another is an InputError."""
    if not isinstance(self[field], dict):
      raise InputError(f"field {field!r} is of type {type(self[field]).__name__}, where an object with fields is needed; mend the row")
    return Row(self[field])


def _text(value: Any, what: str) -> str:
  if not isinstance(value, str):
    raise InputError(f"{what} of type {type(value).__name__}, where a text is needed; mend the row")
  return value


def choose(context: str, answers: Sequence[str], gold: int, unconditional: str = "") -> Question:
  """A question with answers to choose from, a list, each behind the same context and a space."""
  if isinstance(answers, str):
    raise InputError(f"the answers are one text, {answers[:40]!r}, where a list of texts is needed; mend the row")
  if len(answers) < 2:
    raise InputError(f"there is nothing to choose: answers {list(answers)}; give two or more")
  return Question(context, (context,) * len(answers), tuple(f" {answer}" for answer in answers), tuple(map(len, answers)), gold,
                  unconditional)


def fill_in(before: str, options: Sequence[str], after: str, gold: int) -> Question:
  """A gap with options to choose from; the text behind the gap is what is scored (Trinh and Le, arXiv 1806.02847)."""
  check_choices(options)
  return Question(before, tuple(f"{before}{option}" for option in options), (f" {after}",) * len(options), (len(after),) * len(options),
                  gold)


def complete(context: str, continuation: str) -> Question:
  """A text with one right continuation, which follows a space."""
  return Question(context, (context,), (f" {continuation}",), (len(continuation),), 0)


def read_questions(task: str, folder: str | pathlib.Path, limit: int = 0) -> list[Question]:
  """The questions of a task.

  Args:
    task: a name in `TASKS`; what stands behind a colon in it says another way to ask the same rows.
    folder: where the rows lie, or one of `libraries.LIBRARIES`.
    limit: how many of the first rows are taken; 0: all.

  Raises:
    InputError: no such task or file, or a row that is none of the task's, by its line.
  """
  make, out = TASKS[task], []
  in_library = str(folder).startswith(LIBRARIES)
  origin = str(folder) if in_library else _file(task, pathlib.Path(folder))
  rows = library_rows(task, origin) if in_library else _rows(origin)
  for where, row in itertools.islice(rows, limit or None):
    try:
      question = make(Row(row))
      _check(question)
    except InputError as error:
      raise InputError(f"{where}: {error} (task {task})") from None
    except Exception as error:  # Rows are of any types, and functions of users' own may raise anything.
      raised = raised_by_extension(error)
      raise InputError(f"{where}: task {task}: {raised}, or the row" if raised else
                       f"{where}: not a row of task {task} ({type(error).__name__}: {error}); mend the row") from None
    out.append(question)
  if not out:
    raise InputError(f"{origin}: no rows; give the rows of task {task}, a JSON object a line")
  return out


def _check(question: Question) -> None:
  if not isinstance(question, Question):
    raise InputError(f"its function gives a {type(question).__name__}, where a Question is needed; mend the function")
  if not all(isinstance(text, str) for text in (question.prompt, *question.contexts, *question.continuations)):
    raise InputError("a context or an answer is no text; mend the row")
  for text in (question.prompt, *question.contexts, *question.continuations):
    if any("\ud800" <= character <= "\udfff" for character in text):
      raise InputError(f"{text[:40]!r} has half of a surrogate pair, which is no character; mend the row")
  count = len(question.continuations)
  if isinstance(question.gold, bool) or not isinstance(question.gold, int) or not 0 <= question.gold < count:
    raise InputError(f"the right answer is number {question.gold!r} of {count}, counted from 0; mend the row")
  check_choices(question.continuations)


def check_choices(choices: Sequence[str]) -> None:
  """An empty choice is an InputError. Of a `Question`'s continuations that is seen to; not of choices that stand in its contexts."""
  for number, choice in enumerate(choices, 1):
    if not choice.strip():
      raise InputError(f"choice {number} of {len(choices)} is empty; mend the row")


def _file(task: str, folder: pathlib.Path) -> pathlib.Path:
  name = task.partition(":")[0]
  there = [folder / f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()]
  if len(there) != 1:
    like = sorted(path.name for path in folder.glob(f"{name}.*.jsonl*"))
    what = (f"both {there[0].name} and {there[1].name} are there; keep one" if there else
            f"no such file; there is {like[0]}: copy or link it to {name}.jsonl{'.gz' * like[0].endswith('.gz')}" if like else
            "no such file; put the task's rows there")
    raise InputError(f"{folder / name}.jsonl[.gz]: {what}")
  return there[0]


def _rows(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Each row, and where it lies. Blank lines are passed over."""
  check_no_pointer(path)
  data = b"".join(unpacked(path, ".gz" if path.suffix == ".gz" else ""))
  for number, line in enumerate(data.split(b"\n"), 1):
    if line.strip():
      where = f"{path}:{number}"
      try:
        row = json.loads(decoded(line, where, "utf-8-sig"))
      except InputError:
        raise
      except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a JSON line ({getattr(error, 'msg', error)}); mend it") from None
      if not isinstance(row, dict):
        raise InputError(f"{where}: a {type(row).__name__} where a JSON object is needed; mend the line")
      yield where, row
