"""Questions as lm-evaluation-harness and OLMES ask them, and rows that are none."""

import gzip
import json
import pathlib

import pytest

from jaxsplit.errors import InputError
from jaxsplit.evaluation import benchmarks  # noqa: F401 (They add themselves to TASKS.)
from jaxsplit.evaluation.tasks import TASKS, Question, Row, _check, choose, read_questions

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "benchmarks"
OLMES = {"arc_easy": "arc_easy", "arc_challenge": "arc_challenge", "commonsense_qa": "csqa", "openbookqa": "openbookqa", "piqa": "piqa",
         "social_iqa": "socialiqa", "winogrande": "winogrande", "boolq": "boolq"}
KEYS = {"piqa": ("goal", "sol1"), "social_iqa": ("context", "question"), "winogrande": ("sentence",), "boolq": ("question",)}


def ask(task, **row):
  return TASKS[task](Row(row))


# Written from each task's definition in lm-evaluation-harness 0.4.13, on rows of our own.
@pytest.mark.parametrize("task, row, context, continuations, gold", [
    ("arc_easy", {"question": "Why?", "choices": {"text": ["a b", "c"], "label": ["1", "2"]}, "answerKey": "2"},
     "Question: Why?\nAnswer:", (" a b", " c"), 1),
    ("hellaswag", {"activity_label": "Baking", "ctx_a": "[header] A cake [title] is  made.", "ctx_b": "she", "endings": ["eats [step] it. ", "sings."], "label": "1"},
     "Baking: A cake. is made. She", (" eats it.", " sings."), 1),
    ("piqa", {"goal": "Open it", "sol1": "pull", "sol2": "push", "label": 1}, "Question: Open it\nAnswer:", (" pull", " push"), 1),
    ("boolq", {"passage": "P.", "question": "is it", "label": 1}, "P.\nQuestion: is it?\nAnswer:", (" no", " yes"), 1),
    ("boolq", {"passage": "P.", "question": "is it", "answer": False}, "P.\nQuestion: is it?\nAnswer:", (" no", " yes"), 0),
    ("sciq", {"support": " S.", "question": "What?", "distractor1": "x", "distractor2": "y", "distractor3": "z", "correct_answer": "w"},
     "S.\nQuestion: What?\nAnswer:", (" x", " y", " z", " w"), 3),
    ("openbookqa", {"question_stem": "Ice is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "B"},
     "Ice is", (" hot", " cold"), 1),
    ("commonsense_qa", {"question": " Where? ", "choices": {"text": list("vwxyz"), "label": list("ABCDE")}, "answerKey": "C"},
     "Question: Where?\nA. v\nB. w\nC. x\nD. y\nE. z\nAnswer:", (" A", " B", " C", " D", " E"), 2),
    ("social_iqa", {"context": "X did.", "question": "Why?", "answerA": "a", "answerB": "b", "answerC": "c", "label": "3"},
     "Q: X did. Why?\nA:", (" a", " b", " c"), 2),
    ("mmlu", {"question": "2+2? ", "subject": "high_school_math", "choices": ["1", "2", "3", "4"], "answer": 3},
     "The following are multiple choice questions (with answers) about high school math.\n\n2+2?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:",
     (" A", " B", " C", " D"), 3),
    ("lambada_openai", {"text": "one two three"}, "one two", (" three",), 0)])
def test_questions_are_those_of_the_harness(task, row, context, continuations, gold):
  question = ask(task, **row)
  assert set(question.contexts) == {context} == {question.prompt}
  assert (question.continuations, question.gold) == (continuations, gold)
  assert question.sizes == tuple(len(text) - 1 for text in continuations)


def test_a_gap_has_its_options_before_it_and_one_text_behind():
  question = ask("winogrande", sentence="Ann told Bo that _ won.", option1="Ann", option2="Bo", answer="2")
  assert question.contexts == ("Ann told Bo that Ann", "Ann told Bo that Bo") and question.prompt == "Ann told Bo that "
  assert question.continuations == (" won.", " won.") and question.gold == 1


@pytest.mark.parametrize("task", OLMES)
def test_questions_are_those_of_olmes(task, tmp_path):
  """On every row that both files have, in its order: contexts, continuations, right answers, and those without their question."""
  if not SHARED.exists():
    pytest.skip("the shared benchmark files are not here")
  name = f"{task}_xl" if task == "winogrande" else task
  (tmp_path / f"{task}.jsonl.gz").symlink_to(SHARED / "hf_schema" / f"{name}.validation.jsonl.gz")
  asked: dict[tuple, list] = {}
  plain: dict[int, list] = {}
  with gzip.open(SHARED / "olmes_rc_0shot_requests" / f"{OLMES[task]}.jsonl.gz", "rt") as file:
    for request in map(json.loads, file):
      of = plain if request["doc_id"] >= 1_000_000 else asked
      of.setdefault(request["doc_id"] % 1_000_000, []).append((request["request"], request["label"]))
  # BoolQ's passages begin with a title there, which its own rows lack.
  text = lambda request: (request["context"].partition(" -- ")[2] if task == "boolq" else request["context"]) + request["continuation"]
  theirs = {(*(text(request) for request, _ in requests), requests[0][1]): (requests, plain.get(number, []))
            for number, requests in asked.items()}
  questions = read_questions(f"{task}:olmes", tmp_path)
  found = 0
  for question in questions:
    whole = (*map("".join, zip(question.contexts, question.continuations)), question.gold)
    if whole in theirs:
      found += 1
      requests, alone = theirs[whole]
      assert [request["continuation"] for request, _ in requests] == list(question.continuations)
      if alone:
        assert [(request["context"], request["continuation"]) for request, _ in alone] == [
            (question.unconditional, text) for text in question.continuations]
  assert found >= 0.99 * min(len(questions), len(theirs))


ROW = {"goal": "g", "sol1": "a", "sol2": "b", "label": 0}


@pytest.mark.parametrize("row, message", [
    ({"goal": "g", "sol1": "a", "label": 0}, r"piqa.jsonl:2: field 'sol2' is missing; there are 'goal', 'sol1', 'label'; mend the row"),
    (ROW | {"goal": None}, "piqa.jsonl:2: field 'goal' is null"),
    (ROW | {"label": 2}, "piqa.jsonl:2: the right answer is number 2 of 2, counted from 0"),
    (ROW | {"label": -1}, "number -1 of 2"), (ROW | {"sol1": " "}, "piqa.jsonl:2: choice 1 of 2 is empty"),
    (ROW | {"sol1": 7}, "piqa.jsonl:2: field 'sol1' is of type int, where a text is needed; mend the row"),
    (ROW | {"sol1": "\ud800"}, "piqa.jsonl:2: .* has half of a surrogate pair, which is no character; mend the row"), ([1], "a list where a JSON object is needed")])
def test_rows_that_are_none_are_named(tmp_path, row, message):
  (tmp_path / "piqa.jsonl").write_text(f"{json.dumps(ROW)}\n{json.dumps(row)}\n")
  with pytest.raises(InputError, match=message):
    read_questions("piqa", tmp_path)
  assert len(read_questions("piqa", tmp_path, limit=1)) == 1


@pytest.mark.parametrize("task, row, message", [
    ("commonsense_qa", {"question": "q", "choices": {"text": list("vwxyz"), "label": list("ABCDE")}, "answerKey": ""},
     "is the label of no choice"),
    ("mmlu", {"question": "q", "subject": "s", "choices": ["1", "", "3", "4"], "answer": 3}, "choice 2 of 4 is empty"),
    ("winogrande", {"sentence": "A _ b.", "option1": "x", "option2": " ", "answer": "1"}, "choice 2 of 2 is empty"),
    ("arc_easy", {"question": "q", "choices": {"text": ["a", "b", "c"], "label": ["A", "B"]}, "answerKey": "B"},
     "'choices' has 3 texts for its 2 labels"),
    ("arc_easy", {"question": "q", "choices": ["a", "b"], "answerKey": "A"}, "'choices' is of type list, where an object with fields is needed"),
    ("hellaswag", {"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": "xy", "label": 0}, "'endings' is of type str, where a list of texts is needed"),
    ("commonsense_qa", {"question": "q", "choices": {"text": list("vwxyz"), "label": list("EDCBA")}, "answerKey": "A"},
     "has the labels EDCBA, where A to E are needed in that order"),
    ("winogrande", {"sentence": "Ends with _", "option1": "x", "option2": "y", "answer": "1"}, "has nothing behind its gap"),
    ("arc_easy", {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "A"]}, "answerKey": "A"}, "has a label twice: A, A"),
    ("openbookqa", {"question_stem": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"},
     r"nothing to choose: answers \['a'\]; give two or more"),
    ("piqa", ROW | {"label": 0.7}, "'label' = 0.7 is not the number of a choice")])
def test_choices_that_are_listed_or_filled_in_are_checked(task, row, message):
  with pytest.raises(InputError, match=message):
    ask(task, **row)


def test_files_that_are_none_are_named(tmp_path):
  with pytest.raises(InputError, match=r"piqa.jsonl\[.gz\]: no such file"):
    read_questions("piqa", tmp_path)
  (tmp_path / "piqa.jsonl").write_text("\n")
  with pytest.raises(InputError, match="piqa.jsonl: no rows"):
    read_questions("piqa", tmp_path)
  (tmp_path / "piqa.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROW).encode())[:-9])
  with pytest.raises(InputError, match="both piqa.jsonl and piqa.jsonl.gz are there"):
    read_questions("piqa", tmp_path)
  (tmp_path / "piqa.jsonl").unlink()
  with pytest.raises(InputError, match="the archive is broken or truncated"):
    read_questions("piqa", tmp_path)
  with pytest.raises(InputError, match="--tasks = 'pica': there is none of that name; did you mean piqa"):
    read_questions("pica", tmp_path)


def test_a_text_is_no_list_of_answers_and_a_number_no_text():
  with pytest.raises(InputError, match="the answers are one text, 'Lyon', where a list of texts is needed"):
    choose("Where?", "Lyon", 0)
  with pytest.raises(InputError, match="a context or an answer is no text"):
    _check(Question("q", (17, 17), (" a", " b"), (1, 1), 0))
