"""Records as they are in files: what has another shape is told in a line, and what has not is what was written."""

import dataclasses
import json
from typing import Literal

import pytest

from jaxsplit.results.record import parsed, shape_of


@dataclasses.dataclass(frozen=True)
class Tray:
  size: tuple[int, int]
  heat: float


@dataclasses.dataclass(frozen=True)
class Oven:
  mode: Literal["fan", "grill"]
  trays: tuple[Tray, ...]
  spare: Tray | None
  notes: dict[str, float]
  lit: tuple[bool, ...] = ()


OVEN = Oven("fan", (Tray((2, 3), 9.5), Tray((1, 1), 3.0)), None, {"x": 1.0}, (True, False))


@pytest.mark.parametrize("oven", [OVEN, dataclasses.replace(OVEN, spare=Tray((4, 4), 1.0), trays=())])
def test_a_record_comes_back(oven):
  again = parsed(Oven, json.loads(json.dumps(dataclasses.asdict(oven))))
  assert again == oven and type(again.trays) is tuple


def test_whole_numbers_stand_for_others():
  again = parsed(Oven, {**json.loads(json.dumps(dataclasses.asdict(OVEN))), "trays": [{"size": [2, 3], "heat": 9}]})
  assert type(again.trays[0].heat) is float


@pytest.mark.parametrize("change, problem", [
    ({"mode": "boil"}, "mode is none of fan grill"), ({"mode": "fan grill"}, "mode is none of"), ({"mode": ["fan"]}, "mode is none of"),
    ({"trays": [{"size": [1], "heat": 1.0}]}, r"trays\[0\].size has 1 entries instead of 2"),
    ({"trays": [{"size": [1, 2, 3], "heat": 1.0}]}, "3 entries instead of 2"), ({"trays": [{"size": [1, 2]}]}, r"no trays\[0\].heat"),
    ({"trays": [{"size": [1, 2.5], "heat": 1.0}]}, r"size\[1\] is not a whole number"), ({"lit": [1]}, r"lit\[0\] is not true or false"),
    ({"spare": 3}, "spare is not a mapping"), ({"notes": {"x": "y"}}, "notes.x is not a finite number")])
def test_what_has_another_shape_is_told(change, problem):
  with pytest.raises(ValueError, match=problem):
    parsed(Oven, {**json.loads(json.dumps(dataclasses.asdict(OVEN))), **change})


def test_the_shape_follows_from_the_annotations():
  assert shape_of(Oven) == {"mode": "fan grill", "trays": [{"size": [int, int], "heat": float}],
                            "spare": ({"size": [int, int], "heat": float}, None), "notes": {"*": float}, "lit": [bool]}
