"""Common zero-shot benchmarks, with the names and prompts of lm-evaluation-harness.

Names that end in `:olmes` are asked as OLMES does in its cloze form without examples (arXiv 2406.08446): each answer is written out,
and the unconditional score is that behind "Answer:".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jaxsplit.errors import InputError, nearest
from jaxsplit.evaluation.tasks import TASKS, Question, Row, check_choices, choose, complete, fill_in

_OLMES = "Answer:"  # Its context for unconditional scores.


def _arc(row: Row) -> Question:
  return choose(f"Question: {row.text('question')}\nAnswer:", _texts(row), _labelled(row))


def _hellaswag(row: Row) -> Question:
  context = f"{row.text('activity_label')}: {row.text('ctx_a')} {row.text('ctx_b').capitalize()}"
  return choose(_without_markup(context), [_without_markup(ending) for ending in row.texts("endings")], _counted(row, "label"))


def _piqa(row: Row) -> Question:
  return choose(f"Question: {row.text('goal')}\nAnswer:", (row.text("sol1"), row.text("sol2")), _counted(row, "label"))


def _winogrande(row: Row) -> Question:
  before, gap, after = row.text("sentence").partition("_")
  if not gap:
    raise InputError("field 'sentence' has no gap, _; mend the row")
  if not after.strip():
    raise InputError("field 'sentence' has nothing behind its gap, _; mend the row")
  return fill_in(before, (row.text("option1"), row.text("option2")), after.strip(), _numbered(row, "answer", ("1", "2")))


def _boolq(row: Row) -> Question:
  """As SuperGLUE has its rows, with a `label`, or as the data set itself, with an `answer`."""
  return choose(f"{row.text('passage')}\nQuestion: {row.text('question')}?\nAnswer:", ("no", "yes"), _yes(row))


def _sciq(row: Row) -> Question:
  answers = [row.text(name) for name in ("distractor1", "distractor2", "distractor3", "correct_answer")]
  return choose(f"{row.text('support').lstrip()}\nQuestion: {row.text('question')}\nAnswer:", answers, 3)


def _openbookqa(row: Row) -> Question:
  return choose(row.text("question_stem"), _texts(row), _labelled(row))


def _commonsense_qa(row: Row) -> Question:
  if (labels := "".join(_labels(row))) != "ABCDE":
    raise InputError(f"field 'choices' has the labels {labels}, where A to E are needed in that order; mend the row")
  return _by_letter(f"Question: {row.text('question').strip()}", _texts(row), tuple("ABCDE"), _labelled(row))


def _social_iqa(row: Row) -> Question:
  return choose(f"Q: {row.text('context')} {row.text('question')}\nA:", _answers(row), _numbered(row, "label", ("1", "2", "3")))


def _mmlu(row: Row) -> Question:
  about = f"The following are multiple choice questions (with answers) about {row.text('subject').replace('_', ' ')}."
  return _by_letter(f"{about}\n\n{row.text('question').strip()}", row.texts("choices"), tuple("ABCD"), _counted(row, "answer"))


def _lambada(row: Row) -> Question:
  """The last word of a `text`; or its `continuation`, where rows have that and a `context`."""
  if "text" in row:
    context, _, word = row.text("text").rpartition(" ")
    return complete(context, word)
  return complete(row.text("context"), row.text("continuation"))


def _olmes_openbookqa(row: Row) -> Question:
  return choose(f"Question: {row.text('question_stem')}\nAnswer:", _texts(row), _labelled(row), _OLMES)


def _olmes_question(row: Row) -> Question:
  return choose(f"Question: {row.text('question')}\nAnswer:", _texts(row), _labelled(row), _OLMES)


def _olmes_piqa(row: Row) -> Question:
  return choose(f"Goal: {row.text('goal')}\nAnswer:", (row.text("sol1"), row.text("sol2")), _counted(row, "label"), _OLMES)


def _olmes_social_iqa(row: Row) -> Question:
  gold = _numbered(row, "label", ("1", "2", "3"))
  return choose(f"Question: {row.text('context')} {row.text('question')}\nAnswer:", _answers(row), gold, _OLMES)


def _olmes_boolq(row: Row) -> Question:
  return choose(f"{row.text('passage')}\nQuestion: {row.text('question')}?\nAnswer:", ("yes", "no"), 1 - _yes(row), _OLMES)


def _without_markup(text: str) -> str:
  """HellaSwag's text without the marks that WikiHow left in it."""
  return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _texts(row: Row) -> Sequence[str]:
  """The choices, one for each of their labels."""
  choices, labels = row.part("choices"), _labels(row)
  texts = choices.texts("text")
  if len(texts) != len(labels):
    raise InputError(f"field 'choices' has {len(texts)} texts for its {len(labels)} labels; mend the row")
  return texts


def _labelled(row: Row) -> int:
  """Which of the choices has the label that the answer key says."""
  return _position(row.text("answerKey").strip(), _labels(row), "answerKey")


def _labels(row: Row) -> Sequence[str]:
  labels = row.part("choices").texts("label")
  if len(set(labels)) < len(labels):
    raise InputError(f"field 'choices' has a label twice: {', '.join(labels)}; mend the row")
  return labels


def _numbered(row: Row, field: str, labels: Sequence[str]) -> int:
  return _position(str(row[field]), labels, field)


def _counted(row: Row, field: str) -> int:
  """A number, or its digits."""
  try:
    return int(str(row[field]))
  except ValueError:
    raise InputError(f"field {field!r} = {row[field]!r} is not the number of a choice, counted from 0; mend the row") from None


def _position(label: str, labels: Sequence[str], field: str) -> int:
  if label not in list(labels):
    raise InputError(f"field {field!r} = {label!r} is the label of no choice{nearest(label, labels)}; mend the row")
  return list(labels).index(label)


def _answers(row: Row) -> Sequence[str]:
  return [row.text(name) for name in ("answerA", "answerB", "answerC")]


def _yes(row: Row) -> int:
  return _counted(row, "label") if "label" in row else int(row["answer"])


def _by_letter(question: str, answers: Sequence[str], letters: Sequence[str], gold: int) -> Question:
  """Answers are listed by letters, and the letter is the answer."""
  if len(answers) != len(letters):
    raise InputError(f"{len(answers)} choices instead of {len(letters)}; mend the row")
  check_choices(answers)
  listed = "".join(f"\n{letter}. {answer}" for letter, answer in zip(letters, answers))
  return choose(f"{question}{listed}\nAnswer:", letters, gold)


for _name, _function in {
    "arc_easy": _arc, "arc_challenge": _arc, "hellaswag": _hellaswag, "piqa": _piqa, "winogrande": _winogrande, "boolq": _boolq,
    "sciq": _sciq, "openbookqa": _openbookqa, "commonsense_qa": _commonsense_qa, "social_iqa": _social_iqa, "mmlu": _mmlu,
    "lambada_openai": _lambada, "arc_easy:olmes": _olmes_question, "arc_challenge:olmes": _olmes_question,
    "commonsense_qa:olmes": _olmes_question, "openbookqa:olmes": _olmes_openbookqa, "piqa:olmes": _olmes_piqa,
    "social_iqa:olmes": _olmes_social_iqa, "boolq:olmes": _olmes_boolq, "winogrande:olmes": _winogrande}.items():
  TASKS.add(_name, _function)
