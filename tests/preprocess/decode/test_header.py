import io

import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dinov2.errors import DicomRejected
from dinov2.preprocess.decode import terms
from dinov2.preprocess.radiograph import Header
from tests.preprocess.decode.films import dicom, film, opened, retagged, saved
from tests.preprocess.films import CXR, needs_radiographs

NAMES = ("SMITH^JOHN", "Maria Müller", "4711", "1957-01-01", "HANDLEY", "PALMER", "LLOYD", "GEORGE", "AGFAEL")


def header(**tags) -> Header:
    return opened(retagged(dicom(), **tags)).header


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keyword", ["Modality", "BodyPartExamined", "ViewPosition", "Manufacturer"])
def test_a_name_in_the_wrong_field_goes_no_further(name, keyword):
    found = header(**{keyword: name})
    shown = (found.modality, found.body_part, found.view, found.manufacturer)
    assert not any(part.upper() in " ".join(shown).upper() for part in name.replace("^", " ").split())
    assert terms.OTHER in shown or terms.NO_MAKER in shown or found.manufacturer == "Agfa"


def test_identifiers_are_in_no_text_of_the_header():
    found = header(PatientID="SECRET", StudyInstanceUID="1.2.3.4.5", SOPInstanceUID="1.2.3.4.6")
    assert (found.patient_id, found.study_uid, found.image_uid) == ("SECRET", "1.2.3.4.5", "1.2.3.4.6")
    assert not any(secret in repr(found) for secret in ("SECRET", "1.2.3.4"))


@pytest.mark.parametrize("term", ["CR", "DX", "CT", "SR"])
def test_a_modality_is_a_defined_term(term):
    assert header(Modality=term).modality == header(Modality=f" {term.lower()}").modality == term


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ("CHEST", "CHEST"),
        ("Chest PA", "CHEST"),
        ("PORT_CHEST 1V", "CHEST"),
        ("TÓRAX", "THORAX"),
        ("CHEST ABDOMEN", "CHESTABDOMEN"),
        ("CHEST, LUNG", "CHEST LUNG"),
        ("", ""),
        ("EVERYTHING", "OTHER"),
    ],
)
def test_body_parts_are_defined_terms_found_among_the_words(stated, found):
    assert terms.body_part(stated) == found


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        ("PA", "PA"),
        ("ap", "AP"),
        ("AP PORTABLE", "AP"),
        ("CHEST PA ERECT", "PA"),
        ("LAT", "LATERAL"),
        ("LL", "LL"),
        ("L LATERAL", "LL"),
        ("Postero-anterior", "PA"),
        ("PA/LAT", "OTHER"),
        ("SMITH PA", "OTHER"),
        ("", ""),
    ],
)
def test_views_are_defined_terms_or_common_spellings(stated, found):
    assert terms.view(stated) == found


def test_every_view_of_the_context_group_is_understood_by_either_of_its_codes():
    from pydicom.sr._snomed_dict import mapping

    group = codes.CID4010
    for keyword, view in (("AnteroPosterior", "AP"), ("PosteroAnterior", "PA"), ("LateralProjection", "LATERAL"),
                          ("LeftLateral", "LL"), ("RightLateral", "RL"), ("Frontal", "FRONTAL")):  # fmt: skip
        code = getattr(group, keyword)
        for value in (code.value, mapping["SCT"][code.value]):
            assert terms.view_of_code(value, "") == view
    assert terms.view_of_code("R-10214", "") == "PA"
    assert terms.view_of_code("X-1", "antero-posterior") == "AP"
    assert terms.view_of_code("X-1", "what SMITH said") == "OTHER"


@pytest.mark.parametrize("stated", ["", "SMITH"])
def test_the_view_code_is_taken_where_the_plain_tag_says_nothing(stated):
    dataset = pydicom.dcmread(io.BytesIO(retagged(dicom(), ViewPosition=stated)))
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399348003", "SCT", "postero-anterior"
    dataset.ViewCodeSequence = [code]
    assert opened(saved(dataset)).header.view == "AP", "the code counts more than its meaning"


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("GE Healthcare", "GE HealthCare"),
        ("GE MEDICAL SYSTEMS", "GE HealthCare"),
        ("GEMS", "GE HealthCare"),
        ('"GE Healthcare"', "GE HealthCare"),
        ("SIEMENS", "Siemens Healthineers"),
        ("Philips Medical Systems", "Philips"),
        ("FUJI PHOTO FILM Co., ltd.", "Fujifilm"),
        ("FUJIFILM Corporation", "Fujifilm"),
        ("Eastman Kodak Company", "Carestream"),
        ("CARESTREAM HEALTH", "Carestream"),
        ("Agfa-Gevaert", "Agfa"),
        ("KONICA MINOLTA", "Konica Minolta"),
        ("Canon Inc.", "Canon"),
        ("Samsung Electronics", "Samsung"),
        ("GEHEIM", "other"),
        ("", ""),
    ],
)
def test_makers_go_by_their_usual_names(stated, name):
    assert terms.maker(stated) == name


@pytest.mark.parametrize(
    ("tags", "is_capture"),
    [
        ({}, False),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, True),
        ({"SOPClassUID": MultiFrameGrayscaleByteSecondaryCaptureImageStorage}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.1"}, False),
        ({"ConversionType": "WSD"}, True),
        ({"ConversionType": "DF"}, True),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, True),
        ({"ImageType": ["DERIVED", "SECONDARY"], "SOPClassUID": DigitalXRayImageStorageForPresentation}, False),
        ({"ImageType": ["DERIVED", "SECONDARY"], "SOPClassUID": ComputedRadiographyImageStorage}, False),
        ({"ImageType": ["DERIVED", "SECONDARY"], "SOPClassUID": None, "Modality": "OT"}, True),
        ({"ImageType": "DERIVED"}, False),
    ],
)
def test_screens_and_scanned_sheets_are_told_from_processed_films(tags, is_capture):
    assert header(**tags).secondary_capture is is_capture


@needs_radiographs
def test_real_films_say_what_their_table_says():
    found = {path.stem: opened(path.read_bytes()).header for path in (CXR / "dicom").glob("*.dcm")}
    assert {name for name, film_header in found.items() if film_header.view == "PA"} == {
        name for name in found if name.startswith("chest")
    }
    assert found["chest_mono1_15bit_j2k"].manufacturer == "Philips"
    assert found["hip_mono2_rle"].manufacturer == found["ankle_mono1_j2k_lossless"].manufacturer == "Fujifilm"
    assert not found["hip_mono2_rle"].secondary_capture, "DERIVED\\SECONDARY, and a film all the same"


def test_what_a_file_does_not_state_is_empty():
    found = header(Modality=None, BodyPartExamined=None, ViewPosition=None, Manufacturer=None)
    assert (found.modality, found.body_part, found.view, found.manufacturer) == ("", "", "", "")


def test_messages_hold_no_value_of_the_file(recwarn, capfd):
    planted = {
        "PhotometricInterpretation": "SMITH^JOHN",
        "SpecificCharacterSet": "SMITH^JOHN",
        "NumberOfFrames": "SMITH^JOHN",
        "Rows": None,
        "RescaleSlope": "SMITH^JOHN",
        "PatientID": "SMITH^JOHN" * 100,
        "StudyInstanceUID": "SMITH^JOHN" * 100,
    }
    for keyword, value in planted.items():
        data = retagged(dicom(), Rows=None) if value is None else _planted(dicom(), keyword=keyword, value=value)
        refused = _refusal(data)
        assert refused is not None or keyword in ("SpecificCharacterSet", "PatientID", "StudyInstanceUID")
        if refused is not None:
            assert "SMITH" not in str(refused)
            assert refused.__suppress_context__ or refused.__context__ is None
    assert not [remark for remark in recwarn.list if "SMITH" in str(remark.message)]
    assert "SMITH" not in "".join(capfd.readouterr())


def _refusal(data: bytes) -> DicomRejected | None:
    try:
        film(data)
    except DicomRejected as error:
        return error
    return None


def _planted(data: bytes, *, keyword: str, value: str) -> bytes:
    """The element with any text at all, as no library would write it."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    tag = pydicom.tag.Tag(keyword)
    if tag not in dataset:
        dataset.add_new(tag, pydicom.datadict.dictionary_VR(tag), "1" if keyword == "NumberOfFrames" else "")
    raw = value.encode().ljust(len(value) + len(value) % 2)
    marker = pydicom.DataElement(tag, pydicom.datadict.dictionary_VR(tag), "")
    dataset[tag] = marker
    data = saved(dataset)
    head = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + marker.VR.encode()
    at = data.index(head) + len(head)
    return data[:at] + len(raw).to_bytes(2, "little") + raw + data[at + 2 :]
