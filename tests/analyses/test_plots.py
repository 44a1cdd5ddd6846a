import math

import torch

from vitrine.analyses.lettering import printable
from vitrine.analyses.plots import bars, render_plot, wilson_interval


def test_a_plot_is_a_light_picture_of_the_size_asked_for():
    image = render_plot(lambda axes: axes.plot([0, 1], [0, 1]), 300, 200)
    assert image.shape == (200, 300, 3) and image.dtype == torch.uint8
    assert image.float().mean() > 230


def test_bars_are_as_long_as_their_values_and_nan_has_none():
    image = bars({"a": {"x": 80.0}, "b": {"x": 40.0}, "c": {"x": math.nan}}, {"x": "#ff0000"}, "percent", 100)
    red = ((image[..., 0] > 200) & (image[..., 1] < 60)).sum(1)
    lengths = red[red > 10].unique().tolist()
    assert len(lengths) <= 4 and abs(max(lengths) / min(lengths) - 2) < 0.05


def test_the_interval_is_wilsons():
    low, high = wilson_interval(0, 10)  # 0 and z^2 / (n + z^2)
    assert low == 0 and abs(high - 1.96**2 / (10 + 1.96**2)) < 1e-9
    low, high = wilson_interval(50, 100)
    assert abs(low + high - 1) < 1e-9 and abs(high - 0.5962) < 1e-3


def test_letters_that_the_font_lacks_are_left_out_and_said():
    assert printable("été  naïve\nñ") == "été naïve ñ"
    assert printable("🚦 light 日本語 55%") == "? light ? 55%"
    assert printable("") == ""
