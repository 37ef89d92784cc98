import dataclasses

import pytest

from dinov2.config.preprocess import Filters
from dinov2.errors import ConfigError, DicomRejected
from dinov2.preprocess.quality.filters import check, check_flags, refuse_flagged
from dinov2.preprocess.radiograph import Header
from dinov2.preprocess.reasons import Flag, Reason

CHEST = Header(height=600, width=500, modality="DX", body_part="CHEST", view="PA")


def reason(header: Header, policy: Filters) -> str:
    with pytest.raises(DicomRejected) as caught:
        check(header, policy=policy)
    return caught.value.reason


def changed(**values) -> Header:
    return dataclasses.replace(CHEST, **values)


def test_a_chest_film_passes_without_a_flag():
    assert check(CHEST, policy=Filters()) == ()


@pytest.mark.parametrize(
    ("header", "policy", "expected"),
    [
        (changed(modality="CT"), Filters(), "modality"),
        (changed(body_part="KNEE"), Filters(), "body_part"),
        (changed(view="LL"), Filters(views=("AP", "PA")), "view"),
        (changed(width=63), Filters(), "too_small"),
        (changed(height=1501), Filters(), "aspect"),
        (changed(for_processing=True), Filters(), "for_processing"),
        (changed(burned_in=True), Filters(), "burned_in"),
    ],
)
def test_each_filter_turns_its_film_away_with_its_own_reason(header, policy, expected):
    assert reason(header, policy) == expected


def test_what_a_file_does_not_state_is_not_judged():
    silent = Header(height=600, width=500)
    assert check(silent, policy=Filters(views=("PA",))) == ()


def test_a_film_without_a_stated_size_is_left_to_the_decoder_which_knows_what_is_absent():
    assert check(changed(height=0, width=0), policy=Filters()) == ()
    assert reason(changed(height=63), Filters()) == Reason.TOO_SMALL


def test_an_empty_list_takes_everything_and_upper_case_does_not_matter():
    assert check(changed(modality="CT", body_part="KNEE"), policy=Filters(modalities=(), body_parts=())) == ()
    assert check(CHEST, policy=Filters(modalities=("dx",), body_parts=("chest",), views=("pa",))) == ()


def test_the_header_gives_the_flags_of_a_screenshot_burned_in_text_and_raw_values_where_they_are_accepted():
    header = changed(secondary_capture=True, burned_in=True, for_processing=True)
    policy = Filters(for_processing="accept", burned_in="accept")
    assert check(header, policy=policy) == ("screenshot", "burned_in", "for_processing")


def test_no_message_shows_more_than_a_term_of_dicom():
    with pytest.raises(DicomRejected, match="is OTHER; wanted CR, DR, DX, RG"):
        check(changed(modality="OTHER"), policy=Filters())


def test_the_first_named_flag_turns_a_film_away_and_is_its_reason():
    policy = Filters(flags=("screenshot", "truncated"))
    with pytest.raises(DicomRejected, match=r"flagged screenshot: .* take screenshot out of filters\.flags") as caught:
        refuse_flagged(("truncated", "screenshot"), policy=policy)
    assert caught.value.reason is Reason.SCREENSHOT
    refuse_flagged(("polarity_suspect",), policy=policy)
    refuse_flagged((), policy=policy)


@pytest.mark.parametrize("flag", Flag)
def test_every_flag_can_turn_a_film_away(flag):
    check_flags([str(flag)])
    with pytest.raises(DicomRejected) as caught:
        refuse_flagged((flag,), policy=Filters(flags=(str(flag),)))
    assert caught.value.reason == flag


def test_names_that_are_no_flags_are_told_together_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        check_flags(["truncatd", "screenshot", "POLARITY", "xyz"])
    first, second, third = caught.value.faults
    assert "filters.flags: 'truncatd' is no flag. Perhaps truncated? Flags are polarity_suspect, truncated," in first
    assert "Perhaps polarity_suspect?" in second
    assert "Perhaps" not in third
