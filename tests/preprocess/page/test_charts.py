import numpy as np
import pytest

from dinov2.preprocess.page.charts import HEIGHT, WIDTH, bar_chart, histogram, intensity_band, level_shares


def test_bars_are_as_long_as_their_counts_and_shares_are_of_everything():
    bars = bar_chart("views", {"PA": 30, "AP": 10}).bars
    assert [(bar.length, bar.share) for bar in bars] == [(100, 75), (pytest.approx(100 / 3), 25)]


@pytest.mark.parametrize("values", [[], [7.0], [0.0] * 9, [1.2, 1.2], [-5.0, 5.0], list(range(1000))])
def test_every_value_is_in_a_column_of_the_histogram_and_every_column_within_the_drawing(values):
    chart = histogram("sizes", np.array(values, float))
    counts = [int(column.text.rpartition(": ")[2].replace(",", "")) for column in chart.columns]
    assert sum(counts) == len(values)
    assert all(c.x >= 0 and c.x + c.width <= WIDTH and c.y >= 0 and c.y + c.height <= HEIGHT for c in chart.columns)
    assert all((column.height > 0) == (count > 0) for column, count in zip(chart.columns, counts, strict=True))


def test_one_absurd_size_does_not_press_all_others_into_one_column():
    values = np.append(np.linspace(2000, 3000, 5000), 1e6)
    heights = [column.height for column in histogram("sizes", values).columns]
    assert sum(height > HEIGHT / 2 for height in heights) > 25


def test_the_band_lies_around_the_mean_within_the_drawing():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(low, low + 100, (40, 50), dtype=np.uint8) for low in (0, 40, 100, 155)]
    shares = [level_shares(picture) for picture in pictures]
    assert all(share.sum() == pytest.approx(1) for share in shares)
    band = intensity_band("grey", shares)
    mean = np.array([point.split(",") for point in band.mean.split()], float)
    edge = np.array([point.split(",") for point in band.band.split()], float)
    assert mean.shape == (64, 2)
    assert edge.shape == (128, 2)
    assert (edge[:64, 1] <= mean[:, 1]).all(), "the upper edge; SVG counts downwards"
    assert edge.min() >= 0
    assert edge[:, 1].max() <= HEIGHT
