"""What Python and notebooks have of an experiment."""

import importlib
import inspect

import pytest
from matplotlib.figure import Figure

import jaxsplit
from jaxsplit.errors import InputError
from jaxsplit.experiment.displays import _Notebook
from jaxsplit.results.cells import read_cells
from tests.report.conftest import DOMAINS, finished  # noqa: F401


def test_a_result_is_what_the_files_say(finished):  # noqa: F811
  result = jaxsplit.Result(finished)
  cells = read_cells(finished / "cells.csv")
  assert list(result.cells.columns) == list(vars(cells[0])) and list(result.cells.loss) == [cell.loss for cell in cells]
  assert result.plan.num_domains == len(DOMAINS) and result.law.form == "effective_data"
  assert list(result.closing.domain) == [*sorted(DOMAINS), "mean"]
  assert result.closing.perplexity_change.iloc[-1] == pytest.approx(result.closing.perplexity_change.iloc[:-1].mean())
  assert result.answer.startswith("Spend ") and result.answer in repr(result)


def test_a_notebook_shows_answer_table_and_curve(finished):  # noqa: F811
  result = jaxsplit.Result(finished)
  shown = result._repr_html_()
  assert "Spend " in shown and "&lt;b&gt;&amp;prose" in shown and "<svg" in shown and "var(--" not in shown
  figure = result.plot_split()
  assert isinstance(figure, Figure) and figure._repr_png_().startswith(b"\x89PNG")


def test_a_result_of_what_has_only_begun(finished, tmp_path):  # noqa: F811
  with pytest.raises(InputError, match="holds no experiment"):
    jaxsplit.Result(tmp_path)
  (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
  result = jaxsplit.Result(tmp_path)
  assert result.cells.empty and "loss" in result.cells and result.closing.empty and result.plan is None and result.law is None
  assert "No answer yet" in result._repr_html_()
  with pytest.raises(InputError, match="no split is planned"):
    result.plot_split()


@pytest.mark.parametrize("name", jaxsplit.__all__)
def test_everything_public_is_there_and_says_what_it_is(name):
  assert inspect.getdoc(getattr(jaxsplit, name))


def test_progress_in_a_notebook_is_one_output_that_changes(monkeypatch):
  seen = []

  class Handle:
    display = staticmethod(lambda data, raw: seen.append(data))
    update = display

  monkeypatch.setattr(importlib.import_module("IPython.display"), "DisplayHandle", Handle)
  display = _Notebook()
  display.start()
  display.show("grid <1>", {"cells": "3/4", "loss": "2.1"})
  display.stop()
  assert [bool(data["text/html"]) for data in seen] == [False, True, False]
  assert "grid &lt;1&gt;" in seen[1]["text/html"] and seen[1]["text/plain"] == "cells 3/4  loss 2.1"


def test_settings_of_a_config_for_python():
  settings = jaxsplit.read_settings("quickstart.gin", bindings={"Experiment.sizes": ((8, 1), (16, 1)), "Corpus.path": "texts"})
  assert settings.experiment.sizes == ((8, 1), (16, 1)) and settings.experiment.budget_tokens == 680_000
  assert settings.corpus.path == "texts"
  with pytest.raises(InputError, match="did you mean"):
    jaxsplit.read_settings("quickstart.gin", bindings={"Experiment.sizs": 1})
