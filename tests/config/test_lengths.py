"""Epochs to steps."""

import pytest

from dinov2.config.lengths import Lengths, lengths
from dinov2.config.schema import Optim, Teacher, Train


def test_epochs_are_multiples_of_the_official_length():
    assert lengths(Optim(), Teacher(), train=Train()) == Lengths(
        total=125_000, warmup=12_500, freeze_last_layer=1_250, warmup_teacher_temp=37_500
    )


def test_steps_win_over_epochs_even_when_they_are_zero():
    optim = Optim(epochs=7, total_steps=11, warmup_steps=0, freeze_last_layer_steps=0)
    teacher = Teacher(warmup_teacher_temp_steps=0)
    expected = Lengths(total=11, warmup=0, freeze_last_layer=0, warmup_teacher_temp=0)
    assert lengths(optim, teacher, train=Train()) == expected


@pytest.mark.parametrize(("epochs", "total"), [(0.5, 50), (1.25, 125), (0.014, 1)])
def test_epochs_may_be_fractions(epochs, total):
    assert lengths(Optim(epochs=epochs), Teacher(), train=Train(OFFICIAL_EPOCH_LENGTH=100)).total == total
