import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from jaxsplit.report import style


@style.styled
def _figure(name="plain"):
  figure, (axes,) = style.panels(height=2.0)
  axes.plot([0, 1], [0, 1], label=name)
  axes.legend()
  return figure


@pytest.mark.parametrize("value, text", [
    (0, "0"), (850, "850"), (12_345, "12.3k"), (3_400_000, "3.4M"), (999.9, "1k"),
    (999_999, "1M"), (2e12, "2T"), (6e21, "6e+21")])
def test_numbers_are_short(value, text):
  assert style.number(value) == text


def test_powers_are_raised():
  assert style.scientific(3.2e9) == "3.2 × 10⁹"
  assert style.power_of_ten(-12) == "10⁻¹²"


@pytest.mark.parametrize("low, high", [(60_000, 70_000), (1e4, 3e4), (1e4, 1e6), (1.0, 1e12)])
def test_a_logarithmic_axis_has_a_few_ticks_inside(low, high):
  _, (axes,) = style.panels(height=2.0)
  style.log_axis(axes, "x", low, high)
  left, right = axes.get_xlim()
  ticks = axes.get_xticks()
  assert 2 <= len(ticks) <= 8
  assert left <= min(ticks) and max(ticks) <= right and left <= low and high <= right


def test_zero_has_a_place_on_a_logarithmic_axis():
  _, (axes,) = style.panels(height=2.0)
  style.log_axis(axes, "x", 1e3, 1e5, zero=1e3)
  assert [label.get_text() for label in axes.get_xticklabels()][:2] == ["0", "3k"]


def test_the_same_figure_gives_the_same_bytes():
  assert style.to_svg(_figure()) == style.to_svg(_figure())


def test_the_style_outside_stays_as_it_was():
  before = dict(matplotlib.rcParams)
  _figure()
  assert dict(matplotlib.rcParams) == before


def test_inline_follows_the_page():
  svg = style.inline(style.to_svg(_figure()))
  assert svg.startswith("<svg") and "var(--ink)" in svg and style.INK not in svg
  head = svg[:svg.index(">")]
  assert "viewBox" in head and " width=" not in head and " height=" not in head


def test_names_are_no_formulas_and_no_markup():
  svg = style.to_svg(_figure("$a$ <b> & c"))
  texts = [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
  assert "$a$ <b> & c" in texts


def test_the_palette_stands_out_on_white_and_on_black():
  def luminance(color):
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(color)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

  for color in (style.BLUE, style.ORANGE, style.GREEN, style.PINK, style.AMBER, style.SKY, *style.shades(5)):
    white, black = 1.05 / (luminance(color) + 0.05), (luminance(color) + 0.05) / 0.05
    assert white > 1.8 and black > 1.8, color
