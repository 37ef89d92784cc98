from dataclasses import replace

from dinov2.config.preprocess import Filters
from dinov2.preprocess.reasons import Reason
from dinov2.preprocess.work.lookup import rejected_sources
from tests.preprocess.films import SMALL, convert, write_phantom


def test_the_inputs_of_rejects_can_be_found_again_a_few_per_reason(tmp_path):
    for number in range(5):
        write_phantom(tmp_path / f"films/hip{number}.dcm", number=number, BodyPartExamined="HIP")
    write_phantom(tmp_path / "films/x.dcm", number=10)
    write_phantom(tmp_path / "films/y.dcm", number=11)
    config = replace(SMALL, filters=Filters(flags=("duplicate_pixels",)))
    convert(tmp_path / "films", tmp_path / "out", config=config)
    found = rejected_sources(tmp_path / "out.private", per_reason=3)
    assert {reason: len(some) for reason, some in found.items()} == {Reason.BODY_PART: 3, Reason.DUPLICATE_PIXELS: 1}
    assert found[Reason.DUPLICATE_PIXELS][0].source.relative == "y.dcm"
    assert all(one.source.read(max_bytes=10**7) for some in found.values() for one in some)


def test_those_of_shares_are_found_together_and_nothing_where_there_is_nothing(tmp_path):
    for number in range(6):
        write_phantom(tmp_path / f"films/{number}.dcm", number=number, BodyPartExamined="HIP")
    for number in (1, 2):
        convert(tmp_path / "films", tmp_path / "out", share=(number, 2))
    assert len(rejected_sources(tmp_path / "out.private", per_reason=10)[Reason.BODY_PART]) == 6
    assert rejected_sources(tmp_path / "nowhere", per_reason=10) == {}
