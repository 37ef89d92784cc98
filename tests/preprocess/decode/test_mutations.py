"""Bytes changed, cut out and put in anywhere: a film or a reason, and nothing else."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dinov2.config.preprocess import Decode
from dinov2.errors import DicomRejected
from dinov2.phantom.dicom import WRITABLE
from dinov2.preprocess.reasons import FAULTS, Flag, Reason
from tests.preprocess.decode.damage import RASTERS, good_film
from tests.preprocess.decode.films import opened

FILMS = [good_film(form, short_side=64) for form in (*WRITABLE, *RASTERS)]
POLICIES = (Decode(), Decode(multi_frame="all", colour="luminance", voi=True))
EXPECTED = FAULTS | {Reason.COLOUR, Reason.MULTI_FRAME}


@st.composite
def mutants(draw: st.DrawFn, data: bytes) -> bytes:
    """A few changes, more often in the header than its share of the bytes."""
    for _ in range(draw(st.integers(1, 4))):
        last = max(1, len(data) - 1)
        place = draw(st.one_of(st.integers(0, last), st.integers(0, min(1500, last))))
        kind = draw(st.sampled_from(("set", "cut", "remove", "insert")))
        if kind == "set":
            new = draw(st.binary(min_size=1, max_size=4))
            data = data[:place] + new + data[place + len(new) :]
        elif kind == "cut":
            data = data[:place]
        elif kind == "remove":
            data = data[:place] + data[place + draw(st.integers(1, 40)) :]
        else:
            data = data[:place] + draw(st.binary(min_size=1, max_size=40)) + data[place:]
    return data


@pytest.mark.parametrize("good", FILMS, ids=lambda film: film.name)
def test_whatever_is_done_to_the_bytes_a_film_or_a_reason_comes_out(good):
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(mutants(good.data), st.sampled_from(POLICIES))
    def check(data: bytes, policy: Decode) -> None:
        reason = ""
        try:
            film = opened(data, policy=policy, max_megapixels=4, max_file_mb=8)
            frame = film.frame(film.header.num_frames - 1)
        except DicomRejected as error:
            reason = error.reason
        if reason:
            assert Reason(reason) in EXPECTED
            return
        assert frame.pixels.dtype == np.float32
        assert frame.pixels.shape == (film.header.height, film.header.width)
        assert np.isfinite(frame.pixels).all()
        assert frame.padding is None or frame.padding.shape == frame.pixels.shape
        assert all(Flag(flag) for flag in frame.flags)

    check()
