import os
import pickle
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dinov2.errors import DicomRejected
from dinov2.preprocess.intake.archives import list_archive, spool
from dinov2.preprocess.intake.names import archive_kind
from dinov2.preprocess.intake.source import Source
from tests.preprocess.intake.inputs import ROOMY, contents, phantom_bytes, skipped, sources, write_tar, write_zip

TARS = {"a.tar": "w", "a.tar.gz": "w:gz", "a.tgz": "w:gz", "a.tar.bz2": "w:bz2", "a.tar.xz": "w:xz"}
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes]:
    """Two real films, one below folders, and a member without content."""
    return {
        "one.dcm": phantom_bytes(tmp_path, number=1),
        "deep/er/1.2.840.7": phantom_bytes(tmp_path, number=2),
        "empty": b"",
    }


def refusal(source: Source, *, max_bytes: int = ROOMY) -> tuple[str, str]:
    with pytest.raises(DicomRejected) as caught:
        source.read(max_bytes=max_bytes)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_members_of_a_zip_are_read_where_they_lie(tmp_path, members, method):
    found = sources(write_zip(tmp_path / "a.zip", members, method=method))
    assert contents(found) == {f"a.zip!/{name}": content for name, content in members.items()}
    assert {source.size for source in found} == {len(content) for content in members.values()}


def test_a_zip_that_was_streamed_or_follows_other_bytes_is_read_all_the_same(tmp_path, members):
    class Pipe:  # cannot go back, so that sizes follow the content of a member instead of preceding it
        def __init__(self) -> None:
            self.content = b""

        def write(self, block: bytes) -> int:
            self.content += block
            return len(block)

        def flush(self) -> None:
            pass

    write_zip(pipe := Pipe(), members)
    (tmp_path / "a.zip").write_bytes(b"#!/bin/sh\nexit\n" + pipe.content)
    found = contents(sources(tmp_path / "a.zip"))
    assert found == {f"a.zip!/{name}": content for name, content in members.items()}


@pytest.mark.parametrize("name", TARS)
def test_members_of_a_tar_are_the_same_whatever_compresses_it(tmp_path, members, name):
    found = sources(write_tar(tmp_path / name, members, mode=TARS[name]))
    spooled = spool(found, folder=tmp_path / "spool", max_bytes=ROOMY)
    read = {source.relative: source.read(max_bytes=ROOMY) for source in spooled}
    assert read == {f"{name}!/{member}": content for member, content in members.items()}
    assert not (tmp_path / "spool").exists() or not list((tmp_path / "spool").iterdir()), "what is read is removed"


def test_a_source_travels_to_a_worker_and_into_a_table_unchanged(tmp_path, members):
    odd = os.fsdecode(b"\xff\xfe.dcm")
    write_zip(tmp_path / "a.zip", members)
    write_tar(tmp_path / "a.tar", members)
    (tmp_path / odd).write_bytes(b"content")
    for source in sources(tmp_path):
        assert pickle.loads(pickle.dumps(source)) == source
        assert Source.from_text(source.to_text()) == source
        assert source.to_text().isascii()
        assert len(pickle.dumps(source)) < 1000


def test_spooled_films_are_private_and_unpacked_only_when_they_are_asked_for(tmp_path, members):
    found = sources(write_tar(tmp_path / "a.tar.gz", members, mode="w:gz"))
    spooled = spool(found, folder=tmp_path / "spool", max_bytes=ROOMY)
    first = next(spooled)
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    (only,) = (tmp_path / "spool").iterdir()
    assert stat.S_IMODE(only.stat().st_mode) == 0o600
    assert "one" not in only.name
    assert first.read(max_bytes=ROOMY) == members["one.dcm"]
    spooled.close()
    assert not list((tmp_path / "spool").iterdir())


def test_only_wanted_members_are_spooled_and_their_order_may_be_any(tmp_path, members):
    found = sources(write_tar(tmp_path / "a.tar.gz", members, mode="w:gz"))
    plain = Source(relative="x", path=tmp_path / "x", size=0, mtime_ns=0)
    wanted = [found[2], found[0], plain, found[1]]
    out = list(spool(wanted, folder=tmp_path / "spool", max_bytes=ROOMY))
    assert [source.relative for source in out] == [source.relative for source in wanted]
    assert out[1].read(max_bytes=ROOMY) == members["one.dcm"]
    assert out[3].read(max_bytes=ROOMY) == members["deep/er/1.2.840.7"]
    assert len(list((tmp_path / "spool").iterdir())) == 1


def test_a_member_that_climbs_out_of_the_archive_names_no_path(tmp_path):
    evil = {"../../evil.dcm": b"up", "/etc/evil.dcm": b"root", "C:\\evil.dcm": b"drive"}
    (tmp_path / "box").mkdir()
    for name, write in {"a.zip": write_zip, "a.tar": write_tar, "a.tar.gz": write_tar}.items():
        write(tmp_path / "box" / name, evil)
    found = sources(tmp_path / "box")
    assert len(found) == 9
    assert {source.path.parent for source in found} == {tmp_path / "box"}
    out = list(spool(found, folder=tmp_path / "spool", max_bytes=ROOMY))
    assert {source.read(max_bytes=ROOMY) for source in out} == set(evil.values())
    assert {path.name for path in tmp_path.iterdir()} == {"box", "spool"}


def test_what_is_no_film_inside_an_archive_is_left_out_and_counted(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        {"a.dcm": b"1", "list.csv": b"2", ".hidden": b"3", "__MACOSX/a.dcm": b"4", "b.zip": b"5", "c.tar.gz": b"6"},
    )
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.dcm")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        pipe = tarfile.TarInfo("pipe.dcm")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    assert [source.relative for source in sources(path)] == ["a.tar!/a.dcm"]
    assert {name.removeprefix("a.tar!/"): why for name, why in skipped(path).items()} == {
        "list.csv": "NAME",
        ".hidden": "HIDDEN",
        "__MACOSX/a.dcm": "HIDDEN",
        "b.zip": "NESTED",
        "c.tar.gz": "NESTED",
        "link.dcm": "SPECIAL",
        "pipe.dcm": "SPECIAL",
    }


def test_a_link_inside_a_zip_is_left_out(tmp_path):
    info = zipfile.ZipInfo("link.dcm")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
        archive.writestr("a.dcm", b"film")
    assert list(contents(sources(tmp_path / "a.zip"))) == ["a.zip!/a.dcm"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_two_members_of_one_name_are_two_sources(tmp_path, kind):
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("x", b"first")
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("x", b"second")
    else:
        write_tar(tmp_path / "a.tar", {"x": b"first"})
        with tarfile.open(tmp_path / "a.tar", "a") as archive:
            archive.add(write_zip(tmp_path / "second", {}), arcname="x")
    read = contents(sources(tmp_path / f"a.{kind}"))
    assert list(read) == [f"a.{kind}!/x", f"a.{kind}!/x#2"]
    assert read[f"a.{kind}!/x"] == b"first"


def test_an_encrypted_member_is_refused_and_the_others_are_read(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"plain.dcm": b"plain", "secret.dcm": b"secret"})
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag in both headers of the second member
        at = content.rindex(signature)
        content[at + place] |= 1
    path.write_bytes(content)
    plain, secret = sources(path)
    assert plain.read(max_bytes=ROOMY) == b"plain"
    reason, message = refusal(secret)
    assert reason == "unreadable"
    assert "encrypted" in message


@pytest.mark.parametrize("method", METHODS)
def test_a_bomb_is_refused_by_its_stated_size_or_by_what_comes_out(tmp_path, method):
    path = write_zip(tmp_path / "a.zip", {"bomb": bytes(8_000_000)}, method=method)
    (honest,) = sources(path)
    assert refusal(honest, max_bytes=1_000_000)[0] == "too_large"
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 5000)  # the directory claims 5,000 bytes once unpacked
    path.write_bytes(content)
    (lying,) = sources(path)
    assert lying.size == 5000
    assert refusal(lying, max_bytes=1_000_000)[0] == "unreadable"


def test_a_film_of_a_tar_that_is_too_large_is_neither_spooled_nor_read(tmp_path):
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz")):
        found = sources(write_tar(tmp_path / name, {"big": bytes(300_000), "small": b"1"}, mode=mode))
        big, small = spool(found, folder=tmp_path / "spool", max_bytes=200_000)
        assert refusal(big, max_bytes=200_000)[0] == "too_large"
        assert small.read(max_bytes=200_000) == b"1"


def test_a_tar_header_that_claims_gigabytes_of_attributes_is_damage(tmp_path):
    info = tarfile.TarInfo("attributes")
    info.type, info.size = tarfile.XHDTYPE, 3 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(2048))
    (only,) = sources(tmp_path / "a.tar")
    assert "damaged" in refusal(only)[1]


@pytest.mark.parametrize("name", ["a.zip", *TARS])
def test_an_archive_that_is_none_is_one_source_that_cannot_be_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"no archive at all" * 100)
    (only,) = sources(tmp_path / name)
    assert only.relative == name
    reason, message = refusal(only)
    assert reason == "unreadable"
    assert str(tmp_path) not in message


@pytest.mark.parametrize("name", list(TARS))
def test_what_lies_before_the_damage_of_a_tar_is_used_and_the_damage_is_told(tmp_path, name):
    films = {f"{number}.dcm": os.urandom(1_000_000) for number in range(5)}
    path = write_tar(tmp_path / name, films, mode=TARS[name])
    path.write_bytes(path.read_bytes()[:3_500_000])
    found = sources(path)
    assert 1 <= len(found) - 1 < 5
    assert found[-1].relative == name
    assert refusal(found[-1])[0] == "unreadable"
    out = list(spool(found[:-2], folder=tmp_path / "spool", max_bytes=ROOMY))
    assert [source.read(max_bytes=ROOMY) for source in out] == list(films.values())[: len(out)]


def test_a_damaged_header_in_the_middle_of_a_tar_is_not_taken_for_its_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1": b"1" * 600, "2": b"2" * 600, "3": b"3" * 600})
    content = bytearray(path.read_bytes())
    content[3 * 512 + 10 : 3 * 512 + 200] = b"\x55" * 190
    path.write_bytes(content)
    first, told = sources(path)
    assert first.relative == "a.tar!/1"
    assert "damaged" in refusal(told)[1]


def test_damage_while_spooling_costs_the_rest_of_the_archive_and_nothing_else(tmp_path):
    films = {f"{number}": os.urandom(50_000) for number in range(4)}
    path = write_tar(tmp_path / "a.tar.gz", films, mode="w:gz")
    found = sources(path)
    path.write_bytes(path.read_bytes()[:120_000])
    (tmp_path / "plain").write_bytes(b"plain")
    after = Source(relative="plain", path=tmp_path / "plain", size=5, mtime_ns=0)
    out = list(spool([*found, after], folder=tmp_path / "spool", max_bytes=ROOMY))
    assert [source.kind for source in out] == ["spooled", "spooled", "fault", "fault", "file"]
    assert refusal(out[2])[0] == "unreadable"
    assert len(list((tmp_path / "spool").iterdir())) == 2, "half a film lies nowhere"


@pytest.mark.parametrize("member", ["tar", "zip"])
def test_a_member_that_is_cut_or_altered_is_refused(tmp_path, member):
    path = (write_tar if member == "tar" else write_zip)(tmp_path / f"a.{member}", {"x": os.urandom(9000)})
    (source,) = sources(path)
    content = path.read_bytes()
    path.write_bytes(content[:5000])
    assert refusal(source)[0] == "unreadable"
    if member == "zip":
        path.write_bytes(content[:4000] + bytes([content[4000] ^ 1]) + content[4001:])
        assert refusal(source)[0] == "unreadable"


def test_an_archive_that_may_not_be_opened_says_so_when_it_is_read(tmp_path):
    found = list(list_archive(tmp_path / "gone.zip", relative="gone.zip", kind="zip"))
    assert [source.relative for source in found] == ["gone.zip"]
    with pytest.raises(FileNotFoundError):
        found[0].read(max_bytes=ROOMY)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_an_archive_raises_anything_but_a_rejection(tmp_path, name, data):
    path = tmp_path / f"{data.draw(st.integers(0, 1 << 30))}-{name}"
    films = {f"{number}.dcm": bytes(range(256)) * 8 for number in range(3)}
    write_zip(path, films) if name.endswith("zip") else write_tar(path, films, mode=TARS[name])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    found = [one for one in list_archive(path, relative=name, kind=archive_kind(name)) if isinstance(one, Source)]
    for source in spool(found, folder=path.with_suffix(".spool"), max_bytes=ROOMY):
        try:
            read = source.read(max_bytes=ROOMY)
        except DicomRejected as error:
            assert error.reason in ("unreadable", "too_large")  # noqa: PT017
        else:
            assert len(read) == source.size
