import numpy as np
import pydicom
import pytest
from PIL import Image, TiffImagePlugin
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from dinov2.config.preprocess import Decode, Filters, PreprocessConfig, Resample
from dinov2.errors import DicomRejected
from dinov2.phantom.dicom import BITS_STORED, SYNTAXES, Technique
from dinov2.preprocess.decode import raster
from dinov2.preprocess.decode.dicom import read_dicom, read_header
from dinov2.preprocess.quality.likeness import likeness
from dinov2.preprocess.reasons import Flag, Reason
from dinov2.preprocess.render.picture import render
from dinov2.preprocess.work.task import read_film
from tests.preprocess.films import SMALL, write_phantom

ENCAPSULATED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)


def picture(path, config: PreprocessConfig = SMALL) -> np.ndarray:
    return render(read_film(path, config=config)[0], config=config).astype(int)


def reason_of(path, config: PreprocessConfig = SMALL) -> str:
    with pytest.raises(DicomRejected) as caught:
        picture(path, config)
    return caught.value.reason


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("monochrome1", [False, True])
def test_every_transfer_syntax_and_both_polarities_give_the_very_same_picture(tmp_path, syntax, monochrome1):
    plain = write_phantom(tmp_path / "plain.dcm")
    other = write_phantom(tmp_path / "other.dcm", technique=Technique(syntax=syntax, monochrome1=monochrome1))
    assert pydicom.dcmread(other).file_meta.TransferSyntaxUID == syntax
    assert np.abs(picture(plain) - picture(other)).max() <= 1, (
        "a mirrored value that lies half-way rounds the other way"
    )
    assert likeness(picture(other).astype(np.uint8)) > 0


@pytest.mark.parametrize("bits", BITS_STORED)
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSLossless, JPEG2000Lossless, RLELossless]
)
def test_every_bit_depth_gives_the_same_picture_to_its_own_precision(tmp_path, bits, syntax):
    reference = write_phantom(tmp_path / "16.dcm", technique=Technique(bits_stored=16))
    other = write_phantom(tmp_path / "other.dcm", technique=Technique(bits_stored=bits, syntax=syntax))
    assert np.abs(picture(reference) - picture(other)).max() <= (2 if bits == 8 else 1)


@pytest.mark.parametrize("monochrome1", [False, True])
@pytest.mark.parametrize("slope", [0.5, 3.0, -1.0, -0.25])
def test_a_rescale_slope_changes_no_picture_even_where_it_is_negative(tmp_path, slope, monochrome1):
    plain = write_phantom(tmp_path / "plain.dcm")
    other = write_phantom(tmp_path / "other.dcm", technique=Technique(slope=slope, monochrome1=monochrome1))
    assert np.abs(picture(plain) - picture(other)).max() <= 1


def test_lut_shape_inverse_beside_monochrome1_is_the_same_one_inversion(tmp_path):
    plain = picture(write_phantom(tmp_path / "plain.dcm"))
    technique = Technique(monochrome1=True)
    both = write_phantom(tmp_path / "both.dcm", technique=technique, PresentationLUTShape="INVERSE")
    one = write_phantom(tmp_path / "one.dcm", technique=technique, PresentationLUTShape=None)
    alone = write_phantom(
        tmp_path / "alone.dcm",
        technique=technique,
        PhotometricInterpretation="MONOCHROME2",
        PresentationLUTShape="INVERSE",
    )
    assert all(np.abs(picture(path) - plain).max() <= 1 for path in (both, one, alone))


def test_a_film_with_the_wrong_polarity_is_flagged(tmp_path):
    for seed in range(8):
        good = picture(write_phantom(tmp_path / "good.dcm", seed=seed)).astype(np.uint8)
        assert likeness(good) > 0.1
        assert likeness(255 - good) == pytest.approx(-likeness(good), abs=0.02)


def test_rescale_gives_the_modality_values_and_spacing_comes_in_millimetres(tmp_path):
    path = write_phantom(
        tmp_path / "a.dcm", RescaleSlope="2.5", RescaleIntercept="-100", ImagerPixelSpacing=["0.5", "0.25"]
    )
    film = read_dicom(path, policy=Decode())
    assert np.allclose(film.pixels, pydicom.dcmread(path).pixel_array * 2.5 - 100)
    assert film.header.spacing_mm == (0.5, 0.25)
    assert film.pixels.dtype == np.float32
    assert film.bits_stored == 12


def test_a_modality_lut_is_applied_and_reaches_below_zero(tmp_path):
    path = write_phantom(tmp_path / "a.dcm", RescaleSlope=None, RescaleIntercept=None, RescaleType=None)
    dataset = pydicom.dcmread(path)
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "SS", [4096, -10, 16])
    lut.ModalityLUTType = "US"
    table = np.arange(4096)[::-1] * 7
    lut.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    dataset.ModalityLUTSequence = [lut]
    dataset.save_as(path)
    stored = dataset.pixel_array.astype(int)
    assert np.array_equal(read_dicom(path, policy=Decode()).pixels, table[np.clip(stored + 10, 0, 4095)])


def test_a_window_is_applied_where_asked_for_and_a_width_of_zero_is_none(tmp_path):
    path = write_phantom(tmp_path / "a.dcm", WindowCenter="1500", WindowWidth="500")
    windowed = read_dicom(path, policy=Decode(voi=True))
    assert (windowed.pixels == windowed.pixels.min()).mean() > 0.05
    assert not (read_dicom(path, policy=Decode()).pixels == windowed.pixels).all()
    for tags in ({"WindowWidth": "0"}, {"WindowWidth": None, "WindowCenter": None}):
        bare = read_dicom(write_phantom(tmp_path / "b.dcm", **tags), policy=Decode(voi=True))
        assert bare.flags == (Flag.NO_VOI,)


def test_a_voi_lut_goes_before_the_window(tmp_path):
    path = write_phantom(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    lut = pydicom.Dataset()
    table = (np.arange(4096) // 1024 * 1024).astype("<u2")
    lut.add_new("LUTDescriptor", "US", [4096, 0, 16])
    lut.add_new("LUTData", "OW", table.tobytes())
    dataset.VOILUTSequence = [lut]
    dataset.save_as(path)
    assert set(np.unique(read_dicom(path, policy=Decode(voi=True)).pixels)) <= {0.0, 1024.0, 2048.0, 3072.0}


@pytest.mark.parametrize("monochrome1", [False, True])
def test_padding_sets_no_grey_level_and_ends_up_dark(tmp_path, monochrome1):
    technique = Technique(monochrome1=monochrome1)
    clean = picture(write_phantom(tmp_path / "clean.dcm", technique=technique))
    path = write_phantom(tmp_path / "padded.dcm", technique=technique)
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.copy()
    pixels[:40] = 4095
    pixels[40:50] = 4090
    dataset.PixelData = pixels.tobytes()
    dataset.add_new("PixelPaddingValue", "US", 4095)
    dataset.add_new("PixelPaddingRangeLimit", "US", 4090)
    dataset.save_as(path)
    padded = picture(path)
    assert padded[:18].max() == 0
    rest, before = padded[40:], clean[40:]
    assert rest.max() == 255
    slope, offset = np.polyfit(before.ravel(), rest.ravel(), 1)
    assert slope > 1, "what was padded over held the darkest values, so the rest is spread wider"
    assert np.abs(slope * before + offset - rest)[rest > 0].max() <= 2


def test_a_file_without_preamble_and_meta_is_read(tmp_path):
    path = write_phantom(tmp_path / "a.dcm")
    whole = picture(path)
    dataset = pydicom.dcmread(path)
    bare = pydicom.Dataset(dataset)
    bare.save_as(tmp_path / "bare", implicit_vr=True, little_endian=True)
    assert (tmp_path / "bare").read_bytes()[128:132] != b"DICM"
    assert np.array_equal(picture(tmp_path / "bare"), whole)
    assert Flag.NO_META in read_film(tmp_path / "bare", config=SMALL)[1]


def test_a_dicom_file_with_a_tiff_header_in_its_preamble_is_dicom(tmp_path):
    path = write_phantom(tmp_path / "dual.dcm")
    content = path.read_bytes()
    path.write_bytes(b"II*\x00" + content[4:])
    assert not raster.is_raster(path)
    picture(path)


def test_the_one_frame_of_many_is_taken_only_where_asked_for(tmp_path):
    path = write_phantom(tmp_path / "a.dcm")
    single = picture(path)
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 2
    dataset.PixelData += b"\0" * len(dataset.PixelData)
    dataset.save_as(path)
    assert reason_of(path) == Reason.MULTI_FRAME
    first = PreprocessConfig(decode=Decode(multi_frame="first"), resample=Resample(short_side=96))
    assert np.array_equal(picture(path, first), single)
    assert Flag.ONE_FRAME_OF_MANY in read_film(path, config=first)[1]


def colour_dicom(path, rgb: np.ndarray):
    write_phantom(path, technique=Technique(bits_stored=8), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    dataset = pydicom.dcmread(path)
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = rgb.shape[:2]
    dataset.PixelData = rgb.tobytes()
    dataset.save_as(path)
    return path


def test_equal_channels_are_grey_and_others_are_refused_or_reduced_as_asked(tmp_path):
    grey = np.random.default_rng(0).integers(0, 250, (100, 120), dtype=np.uint8)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(read_dicom(colour_dicom(tmp_path / "grey.dcm", rgb), policy=Decode()).pixels, grey)
    rgb[:, :, 0] = 255 - rgb[:, :, 0]
    path = colour_dicom(tmp_path / "colour.dcm", rgb)
    assert reason_of(path) == Reason.COLOUR
    film = read_dicom(path, policy=Decode(colour="luminance"))
    assert np.allclose(film.pixels, rgb @ np.array([0.299, 0.587, 0.114]), atol=0.5)
    assert film.flags == (Flag.COLOUR_REDUCED,)


@pytest.mark.parametrize("syntax", ENCAPSULATED, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("padded", [False, True])
def test_a_cut_stream_is_refused_even_where_zeros_fill_it_up(tmp_path, syntax, share, padded):
    path = write_phantom(tmp_path / "a.dcm", technique=Technique(syntax=syntax))
    dataset = pydicom.dcmread(path)
    (stream,) = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
    kept = stream[: int(share * len(stream)) // 2 * 2]
    dataset.PixelData = pydicom.encaps.encapsulate([kept + b"\0" * ((len(stream) - len(kept)) if padded else 0)])
    dataset.save_as(path)
    assert reason_of(path) in (Reason.TRUNCATED, Reason.UNDECODABLE)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("share", [0.3, 0.8, 0.98])
def test_a_file_that_was_cut_while_copying_is_refused(tmp_path, syntax, share):
    path = write_phantom(tmp_path / "a.dcm", technique=Technique(syntax=syntax))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert reason_of(path) in (Reason.TRUNCATED, Reason.UNREADABLE, Reason.UNDECODABLE, Reason.NO_PIXELS)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT"}, Reason.MODALITY),
        ({"BodyPartExamined": "HIP"}, Reason.BODY_PART),
        ({"PresentationIntentType": "FOR PROCESSING"}, Reason.FOR_PROCESSING),
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.UNSUPPORTED),
        ({"PixelData": None}, Reason.NO_PIXELS),
        ({"BitsAllocated": None}, Reason.BAD_HEADER),
        ({"RescaleSlope": "0"}, Reason.CONSTANT),
        ({"Rows": 40}, Reason.TOO_SMALL),
        ({"Rows": 2000}, Reason.ASPECT),
    ],
)
def test_each_reason_is_given_for_its_cause(tmp_path, tags, reason):
    assert reason_of(write_phantom(tmp_path / "a.dcm", **tags)) == reason


def test_a_film_of_another_view_is_left_out_where_views_are_chosen(tmp_path):
    config = PreprocessConfig(filters=Filters(views=("LATERAL",)))
    assert reason_of(write_phantom(tmp_path / "a.dcm"), config) == Reason.VIEW


def test_an_unknown_transfer_syntax_is_refused_by_name(tmp_path):
    path = write_phantom(tmp_path / "a.dcm", technique=Technique(syntax=RLELossless))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    dataset.save_as(path)
    assert reason_of(path) == Reason.UNSUPPORTED


def test_what_a_file_does_not_state_is_not_judged(tmp_path):
    path = write_phantom(tmp_path / "a.dcm", Modality=None, BodyPartExamined=None)
    assert read_header(path).modality == ""
    picture(path)


def test_the_view_is_read_from_its_code_where_the_plain_tag_is_absent(tmp_path):
    path = write_phantom(tmp_path / "a.dcm", ViewPosition=None)
    dataset = pydicom.dcmread(path)
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "R-10214", "SNM3", "postero-anterior"
    dataset.ViewCodeSequence = [code]
    dataset.save_as(path)
    assert read_header(path).view == "PA"


@pytest.mark.parametrize("name", ["a.png", "a.tif", "b.jpg", "c.tiff"])
def test_a_raster_keeps_its_values_in_eight_and_sixteen_bits(tmp_path, name):
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(90), np.arange(110)).astype(np.uint16) + rng.integers(
        0, 2, (90, 110), dtype=np.uint16
    )
    values = smooth * 300 if name.startswith("a") else smooth.astype(np.uint8)
    Image.fromarray(values).save(tmp_path / name, **({"quality": 100} if name.endswith("jpg") else {}))
    film = raster.read_raster(tmp_path / name, policy=Decode())
    assert film.bits_stored == (16 if name.startswith("a") else 8)
    assert np.abs(film.pixels - values).max() <= (3 if name.endswith("jpg") else 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_white_is_zero_is_turned_round_once(tmp_path, dtype):
    plain = (np.random.default_rng(0).random((90, 100)) * np.iinfo(dtype).max).astype(dtype)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    inverted = np.iinfo(dtype).max - plain
    Image.fromarray(plain).save(tmp_path / "plain.tif")
    # Pillow turns 8 bits round while writing such a file, and does not for 16
    Image.fromarray(plain if dtype == np.uint8 else inverted).save(tmp_path / "white.tif", tiffinfo=tags)
    assert inverted.tobytes() in (tmp_path / "white.tif").read_bytes()
    assert np.abs(picture(tmp_path / "plain.tif") - picture(tmp_path / "white.tif")).max() <= 1


def test_damaged_rasters_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (90, 100), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    assert reason_of(tmp_path / "a.png") == Reason.TRUNCATED
    (tmp_path / "b.png").write_bytes(content[:12])
    assert reason_of(tmp_path / "b.png") == Reason.UNREADABLE


def test_a_text_is_no_image(tmp_path):
    (tmp_path / "notes").write_text("no film at all" * 40)
    assert reason_of(tmp_path / "notes") == Reason.NOT_AN_IMAGE
