import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2.config.preprocess import Filters, Intensity, PreprocessConfig, Resample
from dinov2.errors import Dinov2Error
from dinov2.manifest import from_rows, read
from dinov2.manifest.pack import Packing
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.page.page import Request, Written, write_page
from dinov2.preprocess.page.thumbnails import SIDE_PX, draw_picture, draw_rejected, read_levels
from dinov2.preprocess.reasons import Reason
from tests.preprocess.films import PATIENT, convert, film, rows_of, write_phantom

CONFIG = PreprocessConfig(resample=Resample(short_side=96))


class Reader(HTMLParser):
    """Anchors, links, sources and texts; fails on tags that do not close."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.images, self.tags, self.words = [], [], [], [], []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags += [tag, *values]  # attributes too: none of them may be a handler of events
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.images += [values["src"]] if "src" in values else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags += [tag, *dict(attrs)]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style" and data.strip():
            self.words.append(data.strip())


@pytest.fixture(scope="module")
def conversion(tmp_path_factory) -> Path:
    """Good films, a negative, a repeated one, and one for several reasons each; its folder."""
    root = tmp_path_factory.mktemp("archive")
    films = root / PATIENT / "films"
    for number in range(6):
        maker = ("Philips", "Agfa", "HAROLD^SECRET")[number % 3]
        view = ("PA", "AP")[number % 2]
        write_phantom(films / f"{number}.dcm", number=number, seed=number, Manufacturer=maker, ViewPosition=view)
    write_phantom(films / "again.dcm", number=6, seed=1)
    write_phantom(films / "knee.dcm", number=7, seed=7, BodyPartExamined="KNEE")
    write_phantom(films / "name.dcm", number=8, seed=8, BurnedInAnnotation="YES")
    write_phantom(films / "name2.dcm", number=9, seed=9, BurnedInAnnotation="YES", BodyPartExamined="KNEE")
    write_phantom(films / "cut.dcm", number=10, seed=10)
    (films / "cut.dcm").write_bytes((films / "cut.dcm").read_bytes()[:-9000])
    (films / "junk").write_bytes(b"junk" * 100)
    broken = np.rint(film(11) * 255).astype(np.uint8)
    broken.ravel()[broken.size // 2 + 40 :] = 0
    Image.fromarray(broken).save(films / "broken.png")
    Image.fromarray(np.rint(255 - film(12) * 255).astype(np.uint8)).save(films / "negative.png")
    convert(films, root / "out", config=CONFIG)
    return root / "out"


def page(pictures: Path, output: Path, **words) -> tuple[Reader, Written, str]:
    def check(done: int, total: int) -> None:
        assert 0 < done <= total

    written = write_page(Request(pictures=pictures, output=output, **words), on_progress=check)
    text = output.read_text()
    assert written.num_bytes == output.stat().st_size
    return Reader(text), written, text


@pytest.fixture(scope="module")
def drawn(conversion, tmp_path_factory) -> tuple[Reader, Written, str]:
    return page(conversion, tmp_path_factory.mktemp("page") / "page.html")


def test_the_page_needs_no_script_and_no_other_host(drawn):
    reader, _, text = drawn
    assert not {"script", "link", "iframe", "form", "object"} & set(reader.tags[reader.tags.index("body") :])
    assert not [word for word in reader.tags if word.startswith("on")]
    assert "script" not in reader.tags
    assert all(source.startswith("data:image/jpeg;base64,") for source in reader.images)
    assert all(link.startswith("#") for link in reader.links)
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "@import" not in text
    assert "url(" not in text


def test_every_link_leads_somewhere_and_no_place_has_two_films_sheets(drawn):
    reader, _, _ = drawn
    assert {link.removeprefix("#") for link in reader.links} <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))


def test_counts_are_those_of_the_tables(drawn, conversion):
    reader, written, _ = drawn
    rows = rows_of(conversion)
    assert written.num_pictures == len(rows) == 8
    assert written.num_rejected == 6
    text = " ".join(reader.words)
    assert "14 files 8 pictures" in text
    assert "truncated fault 2 14.3 %" in text
    assert "burned_in filter 1" in text
    assert "polarity_suspect 1 12.5 %" in text


def test_each_group_has_its_sheet(drawn):
    reader, _, _ = drawn
    sheets = {"sample-all-pictures", "flag-polarity-suspect", "view-pa", "view-ap", "manufacturer-philips"}
    sheets |= {"reason-truncated", "reason-body-part", "reason-burned-in", "reason-not-an-image"}
    assert sheets <= set(reader.ids)
    assert any(name.startswith("pairs-") for name in reader.ids)


def test_nothing_names_a_patient_a_file_or_an_original_id(drawn, conversion):
    _, _, text = drawn
    plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    for secret in (PATIENT, "HAROLD", "SECRET", "knee.dcm", ".dcm", "1.2.826", str(conversion.parent)):
        assert secret not in plain


def test_films_with_burned_in_text_are_grey_whatever_they_were_rejected_for_unless_asked_for(
    drawn, conversion, tmp_path
):
    reader, _, _ = drawn
    hidden = reader.words.count("burned-in text: not shown")
    assert hidden == 2
    shown, _, _ = page(conversion, tmp_path / "all.html", show_burned_in=True)
    assert "burned-in text: not shown" not in shown.words
    assert len(shown.images) == len(reader.images) + hidden


def test_burned_in_films_that_were_accepted_are_grey_too(tmp_path):
    write_phantom(tmp_path / "in/a.dcm", number=0, seed=0, BurnedInAnnotation="YES")
    write_phantom(tmp_path / "in/b.dcm", number=1, seed=1)
    config = PreprocessConfig(filters=Filters(burned_in="accept"), resample=Resample(short_side=96))
    convert(tmp_path / "in", tmp_path / "out", config=config)
    reader, _, _ = page(tmp_path / "out", tmp_path / "page.html")
    assert reader.words.count("burned-in text: not shown") >= 2
    assert len(set(reader.images)) == 1


def test_what_cannot_be_decoded_has_a_tile_with_the_reason(drawn):
    reader, _, _ = drawn
    assert "cannot be drawn: truncated" in reader.words
    assert "cannot be drawn: not_an_image" in reader.words


def test_the_same_seed_gives_the_same_page_and_another_seed_others(conversion, tmp_path):
    texts = [page(conversion, tmp_path / f"{i}.html", seed=s, per_sheet=1)[2] for i, s in enumerate((5, 5, 6))]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_no_sheet_has_more_films_than_asked_for(conversion, tmp_path):
    _, written, _ = page(conversion, tmp_path / "few.html", per_sheet=1)
    _, more, _ = page(conversion, tmp_path / "more.html", per_sheet=50)
    assert written.num_shown < more.num_shown


def test_without_the_private_folder_rejects_are_counted_and_not_shown(conversion, tmp_path):
    reader, written, text = page(conversion, tmp_path / "page.html", private=tmp_path / "nowhere")
    assert not written.has_inputs
    assert not [name for name in reader.ids if name.startswith("reason-")]
    assert "it was not" in text
    assert "truncated" in reader.words


def test_missing_pictures_and_gone_inputs_leave_grey_tiles(tmp_path):
    write_phantom(tmp_path / "in/a.dcm", number=0, seed=0)
    knee = write_phantom(tmp_path / "in/b.dcm", number=1, seed=1, BodyPartExamined="KNEE")
    convert(tmp_path / "in", tmp_path / "out", config=CONFIG)
    knee.unlink()
    for picture in (tmp_path / "out/images").rglob("*.png"):
        picture.unlink()
    reader, _, _ = page(tmp_path / "out", tmp_path / "page.html")
    assert "the picture file is missing or damaged" in reader.words
    assert "the input is not there any more" in reader.words
    assert reader.images == []


def test_a_conversion_without_a_picture_has_a_page_all_the_same(tmp_path):
    write_phantom(tmp_path / "in/a.dcm", number=0, seed=0, BodyPartExamined="KNEE")
    convert(tmp_path / "in", tmp_path / "out", config=CONFIG)
    reader, written, _ = page(tmp_path / "out", tmp_path / "page.html")
    assert written.num_pictures == 0
    assert "No picture has a flag." in reader.words
    assert len(reader.images) == 1


def test_values_of_a_users_table_cannot_become_markup(tmp_path):
    Image.fromarray(np.arange(3600, dtype=np.uint16).reshape(60, 60).astype(np.uint8)).save(tmp_path / "a.png")
    row = {"image": "a.png", "image_id": "<b>id</b>", "view": "<b>PA</b>", "flags": "<script>", "dataset": "A & B"}
    from_rows([row], root=tmp_path).write(tmp_path / "m.parquet")
    reader, _, text = page(tmp_path / "m.parquet", tmp_path / "page.html")
    assert "<b>id" not in text
    assert "<script" not in text
    assert "row 0" in reader.words


def test_sixteen_bit_pictures_are_shown_with_their_upper_bits(tmp_path):
    write_phantom(tmp_path / "in/a.dcm", number=0, seed=0)
    levels = {}
    for bits in (8, 16):
        config = PreprocessConfig(resample=Resample(short_side=96), intensity=Intensity(bits=bits))
        convert(tmp_path / "in", tmp_path / f"out{bits}", config=config)
        (picture,) = (tmp_path / f"out{bits}/images").rglob("*.png")
        manifest = from_rows([{"image": str(picture)}], root=tmp_path)
        levels[bits] = read_levels(manifest.place(0))
    assert levels[16].dtype == np.uint8
    assert np.abs(levels[16].astype(int) - levels[8]).max() <= 1


def test_packed_pictures_are_shown_like_those_in_files(conversion, tmp_path):
    packing = Packing(read(conversion / "manifest.parquet"), tmp_path / "packed", shard_mb=1)
    assert sum(1 for _ in packing.run()) == 1
    packing.manifest().write(tmp_path / "packed/manifest.parquet")
    first, _, _ = page(conversion / "manifest.parquet", tmp_path / "a.html", private=tmp_path / "none")
    second, _, _ = page(tmp_path / "packed", tmp_path / "b.html", private=tmp_path / "none")
    assert first.images == second.images
    assert len(first.images) > 10


def test_thumbnails_are_small_jpegs_of_the_picture(tmp_path):
    Image.fromarray(np.tile(np.linspace(0, 255, 600), (400, 1)).astype(np.uint8)).save(tmp_path / "a.png")
    manifest = from_rows([{"image": "a.png"}], root=tmp_path)
    data = base64.b64decode(draw_picture(manifest.place(0)).uri.partition("base64,")[2])
    small = Image.open(io.BytesIO(data))
    assert (small.format, small.size) == ("JPEG", (SIDE_PX, round(SIDE_PX * 400 / 600)))
    assert len(data) < 12_000


def test_a_place_that_cannot_be_written_is_told(conversion, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Dinov2Error, match="cannot be written"):
        page(conversion, tmp_path / "file" / "page.html")


@pytest.mark.parametrize("reason", ["time_limit", "worker_died", "too_large"])
def test_what_cost_a_process_its_life_is_not_tried_in_this_one(reason, tmp_path):
    path = write_phantom(tmp_path / "a.dcm")
    stat = path.stat()
    source = Source(relative="a.dcm", path=path, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
    assert draw_rejected(source, frame=1, reason=Reason(reason), show_burned_in=False).note == "not tried again here"
    assert draw_rejected(source, frame=1, reason=Reason.MODALITY, show_burned_in=False).uri


def test_a_member_of_a_compressed_archive_has_a_tile_that_says_so(tmp_path):
    source = Source(relative="a.tgz!/b", path=tmp_path / "a.tgz", size=9, mtime_ns=0, kind="stream")
    drawn = draw_rejected(source, frame=1, reason=Reason.VIEW, show_burned_in=False)
    assert drawn.note == "in a compressed archive, which is not unpacked for this page"
