"""The edge: what flags and gin files become, and the one line that bad ones get."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import subprocess
import sys
from typing import Literal

import pytest

import jaxsplit
from jaxsplit import cli, fit, plan, prepare, train
from jaxsplit.cli.help import meanings
from jaxsplit.errors import InputError
from jaxsplit.law.plan import PlanSettings


@dataclasses.dataclass(frozen=True)
class Oven:
  """How to bake."""

  heat: float = 180.0
  minutes: int | None = 20
  mode: Literal["fan", "grill"] = "fan"
  shelves: tuple[int, ...] = (1,)
  tray: tuple[int, int] = (30, 40)
  trays: tuple[tuple[int, int], ...] = ()
  guests: tuple[str, ...] = ()
  name: str = "oven"
  lit: bool = False

  def __post_init__(self):
    if self.heat <= 0 or max(self.shelves) > 3:
      raise InputError(f"Oven.heat = {self.heat}: too cold, or Oven.shelves = {self.shelves}: too high")


def parse(*argv, **kwargs):
  return cli.parse("bake", "Bakes.", (Oven,), argv, **kwargs)[Oven]


def write(tmp_path, text, name="a.gin"):
  (tmp_path / name).write_text(text)
  return str(tmp_path / name)


def test_defaults():
  assert parse() == Oven()


def test_files_then_later_files_then_bindings(tmp_path):
  first = write(tmp_path, "Oven.heat = 100\nOven.minutes = 1\nOven.mode = 'grill'")
  second = write(tmp_path, "Oven.minutes = 2\nOven.heat = 200", "b.gin")
  assert parse(f"--gin_file={first}", f"--gin_file={second}", "--gin.Oven.heat=300") == Oven(heat=300.0, minutes=2, mode="grill")


def test_includes_macros_and_search_paths(tmp_path):
  (tmp_path / "base").mkdir()
  write(tmp_path / "base", "HOT = 250\nOven.heat = %HOT")
  write(tmp_path, "include 'a.gin'\nOven.name = 'x'", "top.gin")
  assert parse("--gin_file=top.gin", f"--gin_search_paths={tmp_path}", f"--gin_search_paths={tmp_path / 'base'}") == Oven(heat=250.0, name="x")


def test_a_macro_that_a_later_value_leaves_unused_is_none_too_many(tmp_path):
  path = write(tmp_path, "HOT = 250\nOven:\n  heat = %HOT\n  name = 'x'")
  assert parse(f"--gin_file={path}", "--gin.HOT=90").heat == 90.0
  assert parse(f"--gin_file={path}", "--gin.Oven.heat=90").heat == 90.0


def test_values_take_the_fields_types():
  assert parse("--gin.Oven.shelves=[1, 2]", "--gin.Oven.minutes=None", "--gin.Oven.name=plain") == Oven(shelves=(1, 2), minutes=None, name="plain")


def test_a_value_alone_is_a_tuple_of_one():
  assert parse("--gin.Oven.shelves=2", "--gin.Oven.guests='ann'", "--gin.Oven.trays=(30, 40)") == Oven(
      shelves=(2,), guests=("ann",), trays=((30, 40),))
  assert parse("--shelves=2", "--guests=ann, bob", "--trays=()", fields_as_flags=True) == Oven(shelves=(2,), guests=("ann, bob",))


@pytest.mark.parametrize("text", [
    b"\xef\xbb\xbfOven.heat = 90\n", b"Oven.heat = 90\r\nOven.name = 'oven'\r\n", b"Oven.heat\t=\t90\t# degrees\n", b"Oven:\n\theat = 90\n",
    "Oven.heat = 90  # Grüße\n".encode()])
def test_files_of_any_editor(tmp_path, text):
  (tmp_path / "a.gin").write_bytes(text)
  assert parse(f"--gin_file={tmp_path / 'a.gin'}") == Oven(heat=90.0)


def test_an_empty_file_says_nothing(tmp_path):
  assert parse(f"--gin_file={write(tmp_path, '')}") == Oven()


@pytest.mark.parametrize("content, message", [
    ("Oven.heat = 90".encode("utf-16"), "a.gin: is UTF-16 text; save it as UTF-8"),
    ("Oven.name = 'Öfchen'".encode("latin-1"), "a.gin: is not UTF-8 text; save it as UTF-8"),
    (None, "--gin_file: .*a.gin is a folder; name a file in it")])
def test_files_that_cannot_be_read_are_one_line(tmp_path, content, message):
  path = tmp_path / "a.gin"
  path.mkdir() if content is None else path.write_bytes(content)
  with pytest.raises(InputError, match=message):
    parse(f"--gin_file={path}")


def test_home(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  write(tmp_path, "include '~/b.gin'")
  write(tmp_path, "Oven.heat = 90", "b.gin")
  flags = {"out": cli.Path("where to write"), "name": "no path"}
  given = cli.parse("bake", "Bakes.", (Oven,), ["--gin_file=~/a.gin", "--out=~/x", "--name=~/y"], flags=flags)
  assert given.flags == {"out": f"{tmp_path}/x", "name": "~/y"} and given[Oven].heat == 90.0
  assert parse("--gin_file=b.gin", "--gin_search_paths=~/") == Oven(heat=90.0)
  root = cli.parse("bake", "Bakes.", (Oven,), ["--out=~root/x"], flags=flags).flags["out"]
  assert root.startswith("/") and root.endswith("/x")
  for flag in ("--out", "--gin_file", "--gin_search_paths"):
    with pytest.raises(InputError, match=f"{flag}: ~nobody-of-that-name/x: no user has ~nobody-of-that-name for a home"):
      cli.parse("bake", "Bakes.", (Oven,), [f"{flag}=~nobody-of-that-name/x"], flags=flags)


@pytest.mark.parametrize("entry_point, paths", [(prepare, {"store"}), (train, {"workdir", "store"}), (fit, {"cells", "out", "report"}),
                                                (plan, {"law", "out"})])
def test_the_flags_that_take_paths(entry_point, paths, monkeypatch):
  monkeypatch.setattr(cli, "from_home", lambda path, where: taken.append(where.removeprefix("--")))
  taken = []
  with contextlib.suppress(InputError, TypeError):
    entry_point.main([f"--{name}=~/x" for name in paths])
  assert set(taken) == paths


def test_fields_as_flags():
  assert parse("--heat=90", "--mode=grill", "--shelves=1,2", "--name=3", fields_as_flags=True) == Oven(90.0, 20, "grill", (1, 2), name="3")


@pytest.mark.parametrize("given, lit", [
    ([], False), (["--lit"], True), (["--lit", "--heat=90"], True), (["--lit", "yes"], True), (["--lit", "0"], False),
    *(([f"--lit={text}"], True) for text in ("true", "True", "yes", "1", "on")),
    *(([f"--lit={text}"], False) for text in ("false", "no", "0", "off"))])
def test_booleans_are_flags_with_or_without_a_value(given, lit):
  assert parse(*given, fields_as_flags=True).lit is lit
  heatless = [text for text in given if "heat" not in text]
  assert parse(*(text.replace("--lit", "--gin.Oven.lit") for text in heatless), "--gin.Oven.heat=90").lit is lit
  flags = cli.parse("bake", "Bakes.", (Oven,), heatless, switches={"lit": "light it"}).flags
  assert flags["lit"] is lit


@pytest.mark.parametrize("given", ["--lit=maybe", "--gin.Oven.lit=maybe", "--lit=2", "--gin.Oven.lit=2"])
def test_what_is_no_boolean_is_refused(given):
  with pytest.raises(InputError, match="must be true or false"):
    parse(given, fields_as_flags=True)


@pytest.mark.parametrize("text, message", [
    ("Ovn.heat = 1", r"a.gin:1: unknown name Ovn; did you mean Oven\?"),
    ("\nOven.haet = 1", r"a.gin:2: Oven has no setting haet; did you mean heat"),
    ("\nOven.heat = 'hot'", r"a.gin:2: Oven.heat = 'hot': must be a number"),
    ("HOT = 'hot'\nOven:\n  heat = %HOT", r"a.gin:3: Oven.heat = 'hot': must be a number"),
    ("Oven.heat = True", r"Oven.heat = True: must be a number"),
    ("Oven.mode = 'boil'", r"must be one of fan, grill"),
    ("Oven.tray = (1, 2, 3)", r"Oven.tray = \(1, 2, 3\): needs 2 values, as in \(8, 8\)"),
    ("import os", r"a.gin:1: import is not allowed"),
    ("from __gin__ import dynamic_registration", r"a.gin:1: import is not allowed"),
    ("Oven.heat = ", r"a.gin"),
    ('" Baking.', r"a.gin:1: not a gin statement"),
    ("Oven.heat = 1\nOven.mode = 'fan", r"a.gin:2: not a gin statement"),
    ("include 'none.gin'", r"a.gin:1: no such file: none.gin"),
    ("include 'a.gin'", r"deeper than 16"),
    ("Oven.heat = @os.system()", r"a.gin:1: .*@os.system names code"),
    ("Oven.heat = @Oven()", r"a.gin:1: .*@Oven names code"),
    ("heat = 3", r"a.gin:1: unknown name heat, .*; did you mean Oven.heat\?"),
    ("Ovn = 3", r"a.gin:1: unknown name Ovn, .*; did you mean Oven"),
    ("\nOven = 3", r"a.gin:2: Oven is no setting, but has some; name one of them, as in Oven.heat"),
    ("hot/Oven.heat = 3", r"a.gin:1: hot/Oven: there are no scopes here"),
    ("hot/Oven:\n  heat = 3", r"a.gin:1: hot/Oven: there are no scopes here"),
    ("hot/HOT = 3\nOven.heat = %hot/HOT", r"a.gin:1: hot/HOT: there are no scopes here"),
    ("my.Oven.heat = 3", r"a.gin:1: unknown name my.Oven; did you mean Oven\?"),
    ("HOT = 3\nOven.heat = %HOTT", r"a.gin:1: unknown name HOT, .*; did you mean HOTT\?"),
    ("Oven.heat = %HOT", r"a.gin:1: no macro %HOT; define it"),
    ("HOT = %HOT\nOven.heat = %HOT", r"a.gin:1: macros need each other in a circle \(%HOT of %HOT\)"),
    ("A = (%B, 1)\nB = [%A]\nOven.shelves = %A", r"macros need each other in a circle"),
    ("\n".join(f"A{i} = (%A{i + 1}, %A{i + 1})" for i in range(40)) + "\nA40 = 1\nOven.shelves = %A0", "more than 64 macros"),
    ("Oven.shelves = 'top'", r"Oven.shelves = 'top': must be a whole number"),
    ("Oven.tray = 30", r"Oven.tray = 30: must be as in \(8, 8\)"),
    ("Oven.trays = (30, 'x')", r"Oven.trays = 'x': must be a whole number"),
    ("Oven.trays = 30", r"Oven.trays = 30: must be as in \(\(8, 8\), \(16, 16\)\)"),
    ("Oven.shelves = ('top',)", r"Oven.shelves = 'top': must be a whole number"),
    ("Oven.heat = 'cold'", r"Oven.heat = 'cold': must be a number"),
    (f"Oven.heat = {'9' * 400}", r"Oven.heat = 9+: must be a number"),
    ("Oven.heat = 1e999", r"Oven.heat = inf: must be a finite number"),
    ("Oven.heat = -1", r"Oven.heat = -1.0: too cold"),
])
def test_bad_files_get_one_line(tmp_path, text, message):
  with pytest.raises(InputError, match=message) as caught:
    parse(f"--gin_file={write(tmp_path, text)}")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argv, message", [
    (["--gin_file=nowhere.gin"], "no such file: nowhere.gin"),
    (["--gin_flie=x"], r"unknown flag --gin_flie; did you mean .*--gin_file"),
    (["--gin.Oven.heat"], "has no value"),
    (["--gin.Oven.heta=3"], "did you mean heat"),
    (["--gin.minutes=3"], r"command line: unknown name minutes, .*; did you mean Oven.minutes\?"),
    (["--gin.hot/Oven.heat=3"], "there are no scopes here"),
    (["--gin.Oven.heat=@Oven()"], "@Oven names code"),
])
def test_bad_flags_get_one_line(argv, message):
  with pytest.raises(InputError, match=message):
    parse(*argv)


@pytest.mark.parametrize("cls", [*train.SETTINGS, PlanSettings], ids=lambda cls: cls.__name__)
def test_every_binding_has_a_line_of_what_it_means(cls):
  assert {name for name, text in meanings(cls).items() if len(text) < 5} == set()


def test_help_says_what_every_binding_means(capsys):
  with pytest.raises(SystemExit):
    train.main(["--help"])
  out = capsys.readouterr().out
  assert "    Training.retries = 1\n        how often a stage in which a run diverged is trained again, with its data in another order.\n" in out
  assert "    Optimizer.b1 = 0.9\n        Adam's constants.\n" in out  # Of an entry that several share.
  assert all(f"\n    {cls.__name__}.{field.name} = " in out for cls in train.SETTINGS for field in dataclasses.fields(cls))
  assert max(map(len, out.splitlines())) <= 130
  with pytest.raises(SystemExit):
    fit.main(["--help"])
  assert "FitSettings.starts: starting points per form." in " ".join(capsys.readouterr().out.split())


def test_every_entry_point_has_a_version(capsys):
  with pytest.raises(SystemExit) as ended:
    parse("--version")
  assert ended.value.code == 0 and capsys.readouterr().out == f"jaxsplit {jaxsplit.__version__}\n"


def test_help_lists_bindings_with_defaults(capsys):
  with pytest.raises(SystemExit):
    parse("--help")
  out = capsys.readouterr().out
  assert "Oven.heat = 180.0" in out and "How to bake." in out


def test_a_door_exits_with_2_and_one_line():
  done = subprocess.run([sys.executable, "-m", "jaxsplit.prepare", "--nonsense=1"], capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert done.stderr.count("\n") == 1 and "--nonsense" in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_is_one_line_and_a_code_of_its_own(capsys, monkeypatch):
  def entry_point(argv):
    raise OSError(errno.ENOSPC, "No space left on device", "disk/cells.csv")

  codes = []
  monkeypatch.setattr(cli.os, "_exit", codes.append)
  with pytest.raises(SystemExit):
    cli.run(entry_point)
  assert codes == [cli.FAULT_EXIT_CODE] == [74]
  assert capsys.readouterr().err.startswith("jaxsplit: disk/cells.csv: No space left on device; when that is mended")


@pytest.mark.parametrize("error, what", [(RuntimeError("can't start new thread"), "threads"), (MemoryError(), "memory")])
def test_a_machine_without_room_is_one_line_and_a_code_of_its_own(capsys, monkeypatch, error, what):
  def entry_point(argv):
    raise error

  codes = []
  monkeypatch.setattr(cli.os, "_exit", codes.append)
  with pytest.raises(SystemExit):
    cli.run(entry_point)
  assert codes == [cli.SHORTAGE_EXIT_CODE] == [71]
  assert capsys.readouterr().err.startswith(f"jaxsplit: this machine has no more {what} for this process; raise its limit")


def test_an_error_that_quotes_a_broken_file_stays_one_line():
  text = str(InputError(f"manifest.json: no domain {'[' * 5000!r}\n  there; prepare it again"))
  assert "\n" not in text and len(text) < 2000
  assert text.startswith("manifest.json: no domain") and text.endswith("there; prepare it again")


@pytest.mark.parametrize("encoding, says", [("ascii", "--name: cannot be read, as Python's file-name encoding is ascii here; set PYTHONUTF8=1"),
                                            ("utf-8", "--name: is not UTF-8; give it in that encoding")])
def test_text_that_could_not_be_decoded_is_one_line(encoding, says, monkeypatch):
  monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
  with pytest.raises(InputError, match=says):
    cli.parse("x", "X.", [], ["--name=\udcff"], flags={"name": "a name"})


def test_a_path_that_is_not_utf8_may_be_reached(monkeypatch):
  monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "utf-8")
  assert cli.parse("x", "X.", [], ["--folder=\udcff"], flags={"folder": cli.Path("a folder")}).flags["folder"] == "\udcff"
