"""What is planted in headers, names and tables must not come out, whatever goes wrong."""

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.uid import JPEGLSLossless, RLELossless

from dinov2.config.preprocess import PreprocessConfig, Privacy, Resample
from dinov2.phantom.dicom import Technique
from tests.preprocess.films import SMALL, convert, rejects_of, rows_of, write_few_films, write_phantom

NAME = "PLANTEDNAME"  # in every text of a header, in every name of a file
DATE, TIME, AGE = "19570713", "131517", "067Y"
PLANTED = (NAME, NAME.lower(), DATE, "1957-07-13", TIME, "2.25.4711")
TEXTS = ("LO", "SH", "PN", "LT", "ST", "UT", "UC", "AE", "CS")
KEPT = {  # what the film needs to be one
    "PhotometricInterpretation",
    "Modality",
    "BodyPartExamined",
    "BurnedInAnnotation",
    "PresentationIntentType",
    "SpecificCharacterSet",
    "PresentationLUTShape",
    "PixelPresentation",
    "LossyImageCompression",
    "RescaleType",
    "ImageType",
}


def plant(path: Path, *, number: int, damage: str = "", technique: Technique | None = None, **tags) -> None:
    """A film that names its patient wherever a text fits."""
    write_phantom(path, number=number, seed=number % 3, technique=technique or Technique(), **tags)
    dataset = pydicom.dcmread(path)
    for tag, (kind, multiplicity, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        if not keyword or keyword in KEPT or keyword in tags or retired or group in (0x0000, 0x0002, 0x0028, 0x7FE0):
            continue
        if group not in (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0040) or "-" in multiplicity:
            continue
        if kind in TEXTS:
            dataset.add_new(tag, kind, f"{NAME}^{number}" if kind == "PN" else f"{NAME} {number}"[:16])
        elif kind == "DA":
            dataset.add_new(tag, kind, DATE)
        elif kind == "TM":
            dataset.add_new(tag, kind, TIME)
    dataset.PatientAge = AGE
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(dataset, keyword, f"2.25.4711{number}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif damage == "header":
        path.write_bytes(content.replace(b"(\x00\x10\x00", b"(\x00\x11\x00"))
    elif damage == "noise":
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes(range(256)) * 4 + content[place + 1024 :])
    elif damage == "text":
        path.write_bytes(NAME.encode() * 500)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    films = tmp_path_factory.mktemp("input") / "films"
    folder = films / f"{NAME}_{DATE}"
    kinds = ("", "", "cut", "header", "noise", "text")
    for number, damage in enumerate(kinds):
        plant(folder / f"{NAME}{number}.dcm", number=number, damage=damage)
    for number, syntax in enumerate((RLELossless, JPEGLSLossless), start=20):
        plant(folder / f"{NAME}{number}.dcm", number=number, damage="noise", technique=Technique(syntax=syntax))
    plant(folder / f"{NAME}30.dcm", number=30, Modality=NAME, BodyPartExamined=NAME)
    plant(folder / f"{NAME}31.dcm", number=31, PhotometricInterpretation=NAME)
    plant(folder / f"{NAME}32.dcm", number=1)  # a UID that is there already
    with zipfile.ZipFile(films / f"{NAME}.zip", "w") as packed:
        for number in (40, 41):
            plant(folder / "inner.dcm", number=number)
            packed.write(folder / "inner.dcm", f"{NAME}/{DATE}_{number}.dcm")
        (folder / "inner.dcm").unlink()
    (films / f"{NAME}_broken.zip").write_bytes((films / f"{NAME}.zip").read_bytes()[:2000])
    (films / f"{NAME}_table.csv").write_text(
        f"file,patient,study,split,age,patient_name,visit_date,remark\n{NAME}0.dcm,{NAME}^A,2.25.4711,train,67,{NAME},"
        f"{DATE},fine\n"
    )
    return films


def outputs(root: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found |= {str(path.relative_to(root)): b"" for path in root.rglob("*")} | found
    return found | {"manifest as text": str(pq.read_table(root / "manifest.parquet").to_pydict()).encode()}


def test_no_planted_text_comes_out_of_the_command(archive, tmp_path):
    words = ["--input", archive, "--output", tmp_path / "out", "--table", archive / f"{NAME}_table.csv", "--csv"]
    words += ["--workers", 2, "resample.short_side=96", "max_rejected_share=1", "privacy.keep_columns=[]"]
    done = subprocess.run(
        [sys.executable, "-m", "dinov2", "preprocess", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.replace(str(archive), "") + done.stderr.replace(str(archive), "")
    said = said.replace(f"{NAME}_table.csv", "")  # the user's own words, and they alone
    everything = outputs(tmp_path / "out") | {"said": said.encode()}
    assert len(rows_of(tmp_path / "out")) >= 4
    assert len(rejects_of(tmp_path / "out")) >= 6
    for text in PLANTED:
        assert [name for name, content in everything.items() if text.encode() in content or text in name] == []


def test_the_private_folder_tells_who_is_who_and_is_its_owners_alone(archive, tmp_path):
    convert(archive, tmp_path / "out", config=PreprocessConfig(resample=Resample(short_side=96)))
    home = tmp_path / "out.private"
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in home.iterdir()} >= {"id_key", "state.sqlite", "crosswalk.csv"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in home.iterdir())
    crosswalk = (home / "crosswalk.csv").read_text()
    for row in rows_of(tmp_path / "out"):
        (line,) = [line for line in crosswalk.splitlines() if f",{row['image_id']}," in line]
        assert line.startswith(row["source"])
        assert row["patient"] in line
        assert NAME in line
        assert "2.25.4711" in line
    assert all(any(line.startswith(name) for line in crosswalk.splitlines()) for name in rejects_of(tmp_path / "out"))


def test_without_a_crosswalk_no_identity_is_stored_even_in_private(archive, tmp_path):
    config = PreprocessConfig(resample=Resample(short_side=96), privacy=Privacy(crosswalk=False))
    convert(archive, tmp_path / "out", config=config)
    assert not (tmp_path / "out.private/crosswalk.csv").exists()
    state = (tmp_path / "out.private/state.sqlite").read_bytes()
    assert b"2.25.4711" not in state
    assert f"{NAME} 0".encode() not in state
    assert NAME.encode() in state, "the paths of the inputs are needed to go on, and stay in the private folder"


def test_the_private_folder_can_lie_elsewhere_and_one_that_others_may_read_is_remarked_on(tmp_path):
    from dinov2.preprocess.work.convert import Request, open_conversion

    films = write_few_films(tmp_path / "films")
    convert(films, tmp_path / "out", private=tmp_path / "safe/place")
    assert not (tmp_path / "out.private").exists()
    assert (tmp_path / "safe/place/id_key").exists()
    (tmp_path / "safe/place").chmod(0o755)
    request = Request(input=films, output=tmp_path / "out", private=tmp_path / "safe/place", config=SMALL)
    with open_conversion(request) as conversion:
        assert any("chmod 700" in remark for remark in conversion.remarks)


def test_input_names_are_hidden_unless_asked_for_and_may_change_between_runs(tmp_path):
    films = write_few_films(tmp_path / "films")
    hidden = replace(SMALL, privacy=Privacy(source_names="hmac"))
    convert(films, tmp_path / "out", config=hidden)
    names = [*(row["source"] for row in rows_of(tmp_path / "out")), *rejects_of(tmp_path / "out")]
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)
    assert convert(films, tmp_path / "out")[1] == []
    assert "junk" in rejects_of(tmp_path / "out")


def test_ids_depend_on_the_key_and_on_nothing_else(tmp_path):
    import shutil

    films = write_few_films(tmp_path / "films")
    (tmp_path / "key").write_text("a secret of thirty-two letters ...")
    convert(films, tmp_path / "a", key_file=tmp_path / "key")
    shutil.copytree(films, tmp_path / "moved")
    convert(tmp_path / "moved", tmp_path / "b", key_file=tmp_path / "key")
    convert(films, tmp_path / "c")
    ids = {name: {row["image_id"] for row in rows_of(tmp_path / name)} for name in "abc"}
    assert ids["a"] == ids["b"]
    assert ids["a"].isdisjoint(ids["c"])
