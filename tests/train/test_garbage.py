import gc
import weakref

import pytest

from dinov2.train.garbage import collector_between_steps


class Ring:
    def __init__(self) -> None:
        self.itself = self


def test_garbage_is_collected_at_the_chosen_steps_and_at_no_other_time() -> None:
    with collector_between_steps(3) as after_step:
        assert not gc.isenabled()
        gone = []
        for step in range(1, 5):
            watched = weakref.ref(Ring())
            after_step(step)
            gone.append(watched() is None)
        assert gone == [False, False, True, False]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_collector_comes_back_after_an_error() -> None:
    with pytest.raises(RuntimeError), collector_between_steps(1):
        raise RuntimeError
    assert gc.isenabled()
