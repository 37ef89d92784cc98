import io
import sys

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, HTJ2KLossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1

from dinov2.errors import LaunchError
from dinov2.phantom.dicom import NATIVE, SYNTAXES, WRITABLE, Identification, Technique, film_bytes, write_film
from dinov2.phantom.encoders import ENCODERS, FOR_TESTS, LOSSY, encode

FILM = np.random.default_rng(0).random((70, 81), dtype=np.float32)
WHO = Identification(series="s", patient="P", number=0, view="PA")


def technique(syntax) -> Technique:
    return Technique(syntax=syntax, bits_stored=8 if syntax == JPEGBaseline8Bit else 12)


@pytest.mark.parametrize("syntax", WRITABLE, ids=lambda syntax: syntax.name)
def test_every_syntax_is_written_as_a_whole_file_that_states_it(syntax):
    data = film_bytes(FILM, technique=technique(syntax), identification=WHO)
    dataset = pydicom.dcmread(io.BytesIO(data))
    assert dataset.file_meta.TransferSyntaxUID == syntax
    assert dataset["PixelData"].is_undefined_length == syntax.is_encapsulated
    assert dataset.get("LossyImageCompression") == ("01" if syntax in LOSSY else None)
    assert data == film_bytes(FILM, technique=technique(syntax), identification=WHO), "the same bytes again"


def test_a_series_needs_nothing_that_only_tests_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for syntax in {*WRITABLE} - FOR_TESTS:
        film_bytes(FILM, technique=technique(syntax), identification=WHO)
    assert not set(SYNTAXES) & FOR_TESTS
    assert set(WRITABLE) == {*NATIVE, *ENCODERS}


@pytest.mark.parametrize("syntax", sorted(FOR_TESTS), ids=lambda syntax: syntax.name)
def test_what_needs_the_extra_says_which(syntax, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(LaunchError, match=r"dinov2\[test\]"):
        film_bytes(FILM, technique=technique(syntax), identification=WHO)


@pytest.mark.parametrize(("syntax", "bits"), [(JPEGBaseline8Bit, 12), (JPEGExtended12Bit, 8)])
def test_a_form_that_holds_other_bits_refuses(syntax, bits):
    with pytest.raises(ValueError, match=f"not {bits}"):
        film_bytes(FILM, technique=Technique(syntax=syntax, bits_stored=bits), identification=WHO)


def test_what_is_not_compressed_has_no_encoder():
    with pytest.raises(ValueError, match="no encoder"):
        encode(np.zeros((9, 9), np.uint8), syntax=ExplicitVRLittleEndian, bits_stored=8)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, HTJ2KLossless])
def test_the_file_is_the_bytes(tmp_path, syntax):
    write_film(tmp_path / "a.dcm", FILM, technique=technique(syntax), identification=WHO)
    assert (tmp_path / "a.dcm").read_bytes() == film_bytes(FILM, technique=technique(syntax), identification=WHO)
