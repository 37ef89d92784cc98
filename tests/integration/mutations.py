"""Damaged copies of good films, drawn by hypothesis: what twenty years of disks and networks do to an archive.

In: the bytes of good films. Out: a strategy of `Mutant`s. `hopeless` marks damage that the bytes themselves show, so
that no picture may come of it, whatever a decoder says.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pydicom
from hypothesis import strategies as st
from pydicom.tag import Tag

NUMBERS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")
EXTREMES = (0, 1, 2, 7, 8, 9, 12, 15, 16, 17, 31, 32, 64, 255, 256, 1000, 32767, 32768, 65535)
TEXTS = {
    "PhotometricInterpretation": (
        "",
        "MONOCHROME1",
        "MONOCHROME3",
        "RGB",
        "YBR_FULL_422",
        "PALETTE COLOR",
        "SMITH^JOHN",
    ),
    "NumberOfFrames": ("", "0", "-1", "2", "1000000", "99999999999"),
    "RescaleSlope": ("", "0", "-1", "1e300", "-1e-300", "1E400"),
    "RescaleIntercept": ("", "-1024", "1e300", "-1E400"),
    "WindowWidth": ("", "0", "-1", "1e300"),
    "PixelSpacing": ("", "0\\0", "-1\\1", "1e300\\1e-300", "1"),
    "ImagerPixelSpacing": ("", "0\\0", "1\\2\\3"),
    "SOPInstanceUID": ("", "../../../../tmp/evil", "1.2.3/../../4", "x" * 300, "con", "\x00"),
    "StudyInstanceUID": ("../..", "", "\x00"),
    "PatientID": ("../../x", "", "\x00\x01", "a" * 5000),
    "Modality": ("", "CT", "SMITH^JOHN", "PR"),
    "BodyPartExamined": ("", "FOOT", "SMITH^JOHN"),
    "ViewPosition": ("", "SMITH^JOHN", "PA\\AP"),
    "BurnedInAnnotation": ("YES", "", "MAYBE"),
    "PresentationIntentType": ("FOR PROCESSING", ""),
    "PresentationLUTShape": ("INVERSE", "SMITH"),
    "SpecificCharacterSet": ("ISO_IR 192", "no such set", "\\ISO 2022 IR 87"),
}
SYNTAX_UIDS = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.100",
    "1.2.3",
)
HARMLESS = ("PatientName", "StudyDate", "SeriesDescription", "ImageComments", "ReferringPhysicianName")


@dataclass(frozen=True, kw_only=True)
class Original:
    """A good film; `pixels` is where its pixel data begins, `tail` what may be lost at its end unnoticed."""

    name: str
    data: bytes
    is_dicom: bool
    pixels: int
    tail: int = 0


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A damaged copy: from which film, by what, and whether a picture of it would be an error."""

    original: str
    kind: str
    data: bytes
    hopeless: bool = False
    harmless: bool = False  # the picture must be the original's


def mutants(originals: Sequence[Original]) -> st.SearchStrategy[Mutant]:
    """Every kind of damage, on every film."""
    by_name = {original.name: original for original in originals}
    films = st.sampled_from([original for original in originals if original.is_dicom])
    anything = st.sampled_from(list(originals))
    kinds = (
        anything.flatmap(_cut),
        anything.flatmap(_cut_pixels),
        anything.flatmap(_overwritten),
        anything.flatmap(_overwritten_pixels),
        anything.flatmap(_deleted),
        anything.flatmap(_inserted),
        films.flatmap(_renumbered),
        films.flatmap(_reworded),
        films.flatmap(_removed),
        films.flatmap(_of_another_syntax),
        films.flatmap(_harmless),
        films.flatmap(_wrong_length),
        st.tuples(films, films).flatmap(lambda pair: _crossed(*pair)),
    )
    assert by_name
    return st.one_of(*kinds)


def _cut(film: Original) -> st.SearchStrategy[Mutant]:
    return st.integers(0, len(film.data) - 1 - film.tail).map(
        lambda end: Mutant(original=film.name, kind="cut", data=film.data[:end], hopeless=True)
    )


def _cut_pixels(film: Original) -> st.SearchStrategy[Mutant]:
    """The file ends within the pixel data; sometimes somebody glued an end marker on, or a length was mended."""
    ends = st.integers(film.pixels + 16, len(film.data) - 1 - film.tail)
    return ends.map(lambda end: Mutant(original=film.name, kind="cut pixels", data=film.data[:end], hopeless=True))


def _overwritten(film: Original) -> st.SearchStrategy[Mutant]:
    return _overwrite(film, kind="overwritten", first=0)


def _overwritten_pixels(film: Original) -> st.SearchStrategy[Mutant]:
    return _overwrite(film, kind="overwritten pixels", first=film.pixels)


def _overwrite(film: Original, *, kind: str, first: int) -> st.SearchStrategy[Mutant]:
    places = st.lists(st.tuples(st.integers(first, len(film.data) - 1), st.integers(0, 255)), min_size=1, max_size=16)

    def overwrite(changes: Sequence[tuple[int, int]]) -> Mutant:
        data = bytearray(film.data)
        for place, value in changes:
            data[place] = value
        return Mutant(original=film.name, kind=kind, data=bytes(data))

    return places.map(overwrite)


def _deleted(film: Original) -> st.SearchStrategy[Mutant]:
    return st.tuples(st.integers(0, len(film.data) - 1), st.integers(1, 64)).map(
        lambda gap: Mutant(original=film.name, kind="deleted", data=film.data[: gap[0]] + film.data[gap[0] + gap[1] :])
    )


def _inserted(film: Original) -> st.SearchStrategy[Mutant]:
    return st.tuples(st.integers(0, len(film.data) - 1), st.binary(min_size=1, max_size=64)).map(
        lambda new: Mutant(original=film.name, kind="inserted", data=film.data[: new[0]] + new[1] + film.data[new[0] :])
    )


def _renumbered(film: Original) -> st.SearchStrategy[Mutant]:
    return st.tuples(st.sampled_from(NUMBERS), st.sampled_from(EXTREMES)).map(
        lambda change: _rewritten(film, kind="renumbered", values={change[0]: change[1]})
    )


def _reworded(film: Original) -> st.SearchStrategy[Mutant]:
    pairs = [(name, text) for name, texts in TEXTS.items() for text in texts]
    return st.sampled_from(pairs).map(lambda change: _rewritten(film, kind="reworded", values=dict([change])))


def _removed(film: Original) -> st.SearchStrategy[Mutant]:
    return st.sampled_from([*NUMBERS, *TEXTS, "PixelData"]).map(
        lambda name: _rewritten(film, kind="removed", values={name: None})
    )


def _of_another_syntax(film: Original) -> st.SearchStrategy[Mutant]:
    return st.sampled_from(SYNTAX_UIDS).map(lambda uid: _rewritten(film, kind="another syntax", values={}, syntax=uid))


def _harmless(film: Original) -> st.SearchStrategy[Mutant]:
    return st.tuples(st.sampled_from(HARMLESS), st.sampled_from(("", "19570101", "DOE^JANE", "x" * 60))).map(
        lambda change: _rewritten(film, kind="harmless", values=dict([change]), harmless=True)
    )


def _wrong_length(film: Original) -> st.SearchStrategy[Mutant]:
    """Four bytes before the pixel data, or somewhere in the header, state another length."""
    places = st.one_of(st.just(film.pixels - 4), st.integers(132, film.pixels - 4))
    values = st.sampled_from((0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 0x10000))

    def state(change: tuple[int, int]) -> Mutant:
        place, value = change
        data = film.data[:place] + value.to_bytes(4, "little") + film.data[place + 4 :]
        return Mutant(original=film.name, kind="wrong length", data=data)

    return st.tuples(places, values).map(state)


def _crossed(film: Original, other: Original) -> st.SearchStrategy[Mutant]:
    """The header of one film before the pixel data of another."""
    data = film.data[: film.pixels] + other.data[other.pixels :]
    return st.just(Mutant(original=film.name, kind="crossed", data=data))


def _rewritten(
    film: Original,
    *,
    kind: str,
    values: Mapping[str, object],
    syntax: str | None = None,
    harmless: bool = False,
) -> Mutant:
    """Written again by pydicom with other values; None removes a tag.  Values are set raw, as no writer would."""
    dataset = pydicom.dcmread(io.BytesIO(film.data))
    with pydicom.config.disable_value_validation():
        for name, value in values.items():
            if value is None:
                if name in dataset:
                    del dataset[name]
            else:
                dataset[Tag(name)] = pydicom.DataElement(Tag(name), _vr(name), value)
    stream = io.BytesIO()
    with pydicom.config.disable_value_validation():
        dataset.save_as(stream)
    data = stream.getvalue()
    if syntax is not None:
        old = str(dataset.file_meta.TransferSyntaxUID).encode()
        space = len(old) + len(old) % 2
        data = data.replace(old.ljust(space, b"\0"), syntax.encode()[:space].ljust(space, b"\0"), 1)
    return Mutant(original=film.name, kind=kind, data=data, harmless=harmless)


def _vr(name: str) -> str:
    return str(pydicom.datadict.dictionary_VR(name))
