import math

import numpy as np

from dinov2.report.envelope import envelope
from dinov2.report.scale import Scale, scale_of
from dinov2.report.series import Series, read_numbers
from tests.report.runs import write_lines


def test_a_line_that_is_just_being_written_is_left_out_and_is_no_damage(tmp_path):
    path = write_lines(tmp_path / "m.json", [{"step": 1, "a": 1.0}, {"step": 2, "a": 2.0}])
    path.write_text(path.read_text() + '{"step": 3, "a": 3')
    numbers = read_numbers(path)
    assert numbers.by_name["a"].values.tolist() == [1.0, 2.0]
    assert numbers.num_damaged == 0


def test_damaged_lines_in_the_middle_are_counted_and_the_others_kept(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"step": 1, "a": 1}\n\x00\x00\n[1, 2]\n{"a": 4}\n{"step": "x", "a": 1}\n{"step": 9, "a": 5}\n')
    numbers = read_numbers(path)
    assert numbers.by_name["a"].steps.tolist() == [1, 9]
    assert numbers.num_damaged == 4


def test_of_a_step_that_stands_twice_the_later_line_counts(tmp_path):
    steps = [1, 2, 3, 4, 2, 3]
    path = write_lines(tmp_path / "m.json", [{"step": step, "a": float(i)} for i, step in enumerate(steps)])
    series = read_numbers(path).by_name["a"]
    assert series.steps.tolist() == [1, 2, 3, 4]
    assert series.values.tolist() == [0.0, 4.0, 5.0, 3.0]


def test_null_is_a_number_that_was_not_finite_and_words_are_no_numbers(tmp_path):
    path = write_lines(tmp_path / "m.json", [{"step": 1, "a": None, "b": "word"}, {"step": 2, "a": 2.0}])
    numbers = read_numbers(path)
    assert set(numbers.by_name) == {"a"}
    assert math.isnan(numbers.by_name["a"].values[0])
    assert numbers.by_name["a"].last == 2.0


def test_a_single_spike_among_a_hundred_thousand_steps_stays_in_the_envelope():
    steps = np.arange(1, 100_001)
    values = np.sin(steps / 1000)
    values[54_321], values[70_000] = 50.0, -20.0
    reduced = envelope(Series(steps, values), columns=340, first=0, last=100_000)
    assert len(reduced.steps) == 340
    assert reduced.high.max() == 50.0
    assert reduced.low.min() == -20.0
    assert np.all((reduced.low <= reduced.mean) & (reduced.mean <= reduced.high))
    assert np.all(np.diff(reduced.steps) > 0)


def test_the_mean_of_a_column_is_that_of_its_own_steps():
    steps = np.arange(0, 1000)
    reduced = envelope(Series(steps, steps.astype(float)), columns=10, first=0, last=1000)
    assert reduced.mean.tolist() == [49.5 + 100 * column for column in range(10)]
    assert reduced.steps.tolist() == reduced.mean.tolist()


def test_few_points_are_drawn_as_they_are_and_those_that_were_not_finite_are_told():
    values = np.array([1.0, math.nan, 3.0])
    reduced = envelope(Series(np.array([1, 2, 3]), values), columns=340, first=0, last=3)
    assert reduced.mean.tolist() == [1.0, 3.0]
    assert reduced.lost.tolist() == [2]
    assert not reduced.is_reduced


def test_ticks_lie_within_the_axis_at_round_numbers():
    assert [tick.text for tick in Scale(0, 100_000).ticks(most=5)] == ["0", "20k", "40k", "60k", "80k", "100k"]
    assert [tick.text for tick in Scale(1e-6, 1e-2, is_log=True).ticks()] == ["1e-6", "1e-5", "1e-4", "0.001", "0.01"]


def test_an_axis_is_logarithmic_only_where_many_values_span_decades():
    assert scale_of(0.001, 10.0, may_be_log=True).is_log
    assert not scale_of(0.001, 10.0, may_be_log=True, typical_low=1.0).is_log
    assert not scale_of(0.0, 10.0, may_be_log=True).is_log
    assert not scale_of(0.001, 10.0, may_be_log=False).is_log


def test_values_that_hardly_change_get_an_axis_that_does_not_show_rounding():
    scale = scale_of(4.15887, 4.15888, may_be_log=False)
    assert scale.high - scale.low > 0.02


def test_numbers_that_only_some_lines_have_keep_their_own_steps(tmp_path):
    lines = [{"step": 1, "a": 1}, {"step": 2, "a": 2.0, "b": 20}, {"step": 3, "b": 30.0}, {"step": 2, "a": 5}]
    numbers = read_numbers(write_lines(tmp_path / "m.json", lines)).by_name
    assert (numbers["a"].steps.tolist(), numbers["a"].values.tolist()) == ([1, 2], [1.0, 5.0])
    assert (numbers["b"].steps.tolist(), numbers["b"].values.tolist()) == ([2, 3], [20.0, 30.0])


def test_a_number_that_no_float_can_hold_is_a_damaged_line(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": ' + "9" * 400 + '}\n{"step": 3, "a": 3}\n')
    numbers = read_numbers(path)
    assert numbers.by_name["a"].steps.tolist() == [1, 3]
    assert numbers.num_damaged == 1
