from xml.etree import ElementTree

import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from research.report import bars, curves, points, save, svg

SERIES = {"train": ([1, 2, 3], [3.0, 2.0, 1.5]), "held out": ([1, 2, 3], [3.1, 2.3, 2.0])}


def test_curves_draw_every_series_and_level():
    figure = curves(SERIES, x_label="step", y_label="loss", levels={"xz": 1.9}, log_y=True)
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.get_lines()] == ["train", "held out", "xz"]
    assert list(axes.get_lines()[1].get_ydata()) == [3.1, 2.3, 2.0]
    assert axes.get_yscale() == "log"


def test_names_of_near_points_lie_on_nothing():
    """Eight points in one place, some beside each other, and one on the axis."""
    named = [(f"a long name {i}", 1.0, 1.0 + 0.001 * i) for i in range(8)] + [("b", 1.01, 1.0), ("c", 9.0, 0.0)]
    figure = points({"all": named}, x_label="x", y_label="y", log_x=True)
    (axes,) = figure.axes
    figure.draw_without_rendering()
    boxes = {note.get_text(): Text.get_window_extent(note) for note in axes.texts}
    assert set(boxes) == {name for name, *_ in named}
    for name, box in boxes.items():
        assert not any(box.overlaps(other) for text, other in boxes.items() if text != name)
        assert not any(box.contains(*axes.transData.transform(point[1:])) for point in named)
        assert box.y0 > axes.bbox.y0 and box.x0 > axes.bbox.x0


def test_a_band_lies_around_its_own_curve():
    figure = curves(SERIES, x_label="k", y_label="acc", bands={"held out": ([3.0, 2.0, 1.9], [3.2, 2.6, 2.4])})
    (band,) = figure.axes[0].collections
    corners = {tuple(map(float, corner)) for corner in band.get_paths()[0].vertices}
    assert corners == {(1, 3.0), (2, 2.0), (3, 1.9), (1, 3.2), (2, 2.6), (3, 2.4)}
    assert tuple(band.get_facecolor()[0][:3]) == tuple(to_rgb(figure.axes[0].get_lines()[1].get_color()))


def test_svg_is_well_formed_and_takes_the_colours_of_the_page():
    drawn = svg(curves(SERIES, x_label="step", y_label="loss <nats>"))
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg") and root.get("width") == "100%"
    assert "currentColor" in drawn and "font-family" not in drawn
    shown = {t.text for t in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"step", "loss <nats>", "train", "held out"} <= shown
    assert drawn == svg(curves(SERIES, x_label="step", y_label="loss <nats>"))


def test_bars_with_intervals():
    figure = bars({"R1": {"before": 0.1, "after": (0.2, 0.3, 0.4)}, "R2": {"before": 0.0, "after": 0.1}}, y_label="F")
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert heights == [0.1, 0.0, 0.3, 0.1]


def test_save_makes_folders(tmp_path):
    path = save(curves(SERIES, x_label="x", y_label="y"), tmp_path / "new" / "a.png")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curves({}, x_label="", y_label=""), "got none"),
        (lambda: curves({"a": ([1], [1, 2])}, x_label="", y_label=""), "1 x values and 2 y values"),
        (lambda: curves({"a": ([1], [1])}, x_label="", y_label="", bands={"b": ([1], [1])}), "series are \\['a'\\]"),
        (lambda: curves({"a": ([1], [1])}, x_label="", y_label="", bands={"a": ([1], [])}), "1 and 0 values"),
        (lambda: bars({}, y_label=""), "got none"),
        (lambda: bars({"a": {"x": 1.0}, "b": {"y": 1.0}}, y_label=""), "'b' has bars"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
