import logging

import pytest

from dinov2.batch import Replaced
from dinov2.data.unreadable import UnreadableCounter
from dinov2.errors import DataError


def bad(name: str, *, position: int = 0) -> Replaced:
    return Replaced(position=position, path=name, reason="empty")


def test_a_file_counts_once_and_is_logged_once_however_often_it_comes(caplog):
    counter = UnreadableCounter(100, max_share=0.01)
    with caplog.at_level(logging.WARNING):
        for position in range(10):
            counter.add([bad("a.png", position=position)])
    assert counter.share == 0.01
    assert [record.getMessage() for record in caplog.records] == [
        "a.png cannot be read (empty); its neighbour in the stream takes its place."
    ]


def test_the_share_that_is_allowed_does_not_stop_the_run_and_one_file_more_does():
    counter = UnreadableCounter(200, max_share=0.01)
    counter.add([bad("a.png"), bad("b.png")])
    with pytest.raises(
        DataError, match=r"3 of 200 pictures cannot be read \(1.50%\).*max_unreadable_share=0.01.*a.png: empty"
    ):
        counter.add([bad("c.png")])


def test_the_message_names_five_files_and_counts_the_rest():
    with pytest.raises(DataError) as caught:
        UnreadableCounter(10, max_share=0.0).add([bad(f"{i}.png") for i in range(8)])
    assert "4.png: empty; and 3 more" in str(caught.value)
    assert "5.png" not in str(caught.value)


def test_files_of_other_processes_count_like_ones_own_and_common_ones_once():
    counter = UnreadableCounter(200, max_share=0.01)
    counter.add([bad("a.png")])
    counter.merge({"a.png": "empty", "b.png": "empty"})
    assert counter.share == 0.01
    with pytest.raises(DataError, match=r"3 of 200 pictures cannot be read"):
        counter.merge({"c.png": "empty"})


def test_of_several_processes_one_warns(caplog):
    with caplog.at_level(logging.WARNING):
        UnreadableCounter(100, max_share=1, warns=False).merge({"a.png": "empty"})
    assert caplog.records == []
