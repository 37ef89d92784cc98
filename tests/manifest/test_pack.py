"""Tar shards: the same pictures, plain tar files, the same bytes every time, and what is done is not done again."""

import os
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from dinov2.errors import ManifestError
from dinov2.manifest import Manifest, from_folder, from_rows, read
from dinov2.manifest.check import file_faults, table_faults
from dinov2.manifest.edit import measure, rebase, with_measures
from dinov2.manifest.merge import merge
from dinov2.manifest.pack import Packing

SHARD_BYTES = 4000
GOOD_NAMES = ["__/__/up.png", "", "", "", "", "dots_in_it.png", "", "", "plain-1_2.png"]


@pytest.fixture
def manifest(tmp_path):
    """Ten pictures of different sizes in subfolders, measured."""
    for number in range(10):
        path = tmp_path / "films" / f"p{number % 3}" / f"film{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (10 + 3 * number, 20), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    found = from_folder(tmp_path / "films")
    return with_measures(found, list(measure(found)))


def packed(manifest, folder, *, most=SHARD_BYTES):
    packing = Packing(manifest, folder, shard_mb=1)
    packing._most = most
    list(packing.run())
    result = packing.manifest()
    result.write(folder / "manifest.parquet")
    return packing, result


def tree(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_picture_is_read_back_byte_for_byte(manifest, tmp_path):
    packing, result = packed(manifest, tmp_path / "packed")
    assert packing.num_shards > 2
    assert [result.place(row).read() for row in range(10)] == [manifest.path(row).read_bytes() for row in range(10)]
    again = read(tmp_path / "packed" / "manifest.parquet")
    assert [again.place(row) for row in range(10)] == [result.place(row) for row in range(10)]
    assert again.table.drop_columns(["image", "offset", "num_bytes"]).equals(manifest.table.drop_columns(["image"]))


def test_plain_tar_reads_a_shard_and_finds_the_pictures_by_their_ids(manifest, tmp_path):
    _, result = packed(manifest, tmp_path / "packed")
    shard, name = result.row(0)["image"].split("::")
    assert name == "p0/film0.png"
    listed = subprocess.run(
        ["tar", "--list", "--file", tmp_path / "packed" / shard], check=True, capture_output=True, text=True
    )
    assert listed.stdout.splitlines()[0] == name
    assert listed.stderr == ""
    with tarfile.open(tmp_path / "packed" / shard) as archive:
        member = archive.getmember(name)
        assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
        assert archive.extractfile(member).read() == manifest.path(0).read_bytes()


def test_shards_keep_to_their_size_unless_one_picture_is_larger(manifest, tmp_path):
    packed(manifest, tmp_path / "packed")
    sizes = [path.stat().st_size for path in (tmp_path / "packed" / "shards").glob("*.tar")]
    assert max(sizes) <= SHARD_BYTES
    packing, _ = packed(manifest, tmp_path / "single", most=100)
    assert packing.num_shards == 10


def test_the_bytes_are_the_same_wherever_and_whenever_they_are_written(manifest, tmp_path):
    packed(manifest, tmp_path / "one")
    for row in range(10):
        os.utime(manifest.path(row), (row, row))
    packed(manifest, tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_an_interrupted_packing_goes_on_and_ends_the_same(manifest, tmp_path):
    packed(manifest, tmp_path / "whole")
    packing = Packing(manifest, tmp_path / "packed", shard_mb=1)
    packing._most = SHARD_BYTES
    run = packing.run()
    next(run)
    next(run)
    run.close()
    (tmp_path / "packed" / "shards" / ".00002.tar.partial").write_bytes(b"cut short")
    first = (tmp_path / "packed" / "shards" / "00000.tar").stat()
    packing, _ = packed(manifest, tmp_path / "packed")
    assert packing.num_kept == 2
    assert (tmp_path / "packed" / "shards" / "00000.tar").stat().st_ino == first.st_ino
    assert tree(tmp_path / "packed") == tree(tmp_path / "whole")


def test_a_damaged_shard_and_one_whose_picture_changed_are_written_again(manifest, tmp_path):
    packed(manifest, tmp_path / "packed")
    shard = tmp_path / "packed" / "shards" / "00001.tar"
    shard.write_bytes(shard.read_bytes()[:-700])
    path = manifest.path(0)
    noise = np.asarray(Image.open(path))
    Image.fromarray(255 - noise).save(path)
    changed = with_measures(manifest, list(measure(manifest)))
    os.utime(path, (2**32, 2**32))
    packing, result = packed(changed, tmp_path / "packed")
    assert packing.num_kept == packing.num_shards - 2
    assert [fault for fault in file_faults(result, hashes=True) if fault] == []


def test_packed_pictures_pass_the_check_and_faults_of_shards_are_found(manifest, tmp_path):
    _, result = packed(manifest, tmp_path / "packed")
    assert [fault for fault in file_faults(result, hashes=True) if fault] == []
    assert table_faults(result) == []
    assert list(measure(result)) == list(measure(manifest))
    place = result.place(9)
    data = bytearray(place.path.read_bytes())
    data[place.offset + place.num_bytes - 20] ^= 255
    place.path.write_bytes(data)
    result.place(0).path.unlink()
    kinds = [fault.kind for fault in file_faults(result, hashes=True) if fault]
    assert set(kinds) == {"missing", "content"}
    assert kinds.count("content") == 1
    assert 0 in result.missing_files()


def test_packed_manifests_move_merge_and_are_packed_again(manifest, tmp_path):
    _, result = packed(manifest, tmp_path / "packed")
    (tmp_path / "else" / "where").mkdir(parents=True)
    moved = rebase(result, tmp_path / "else" / "where")
    assert moved.row(0)["image"] == "../../packed/shards/00000.tar::p0/film0.png"
    assert moved.place(3).read() == manifest.path(3).read_bytes()
    (tmp_path / "other").mkdir()
    Image.new("L", (9, 9), 77).save(tmp_path / "other" / "x.png")
    from_folder(tmp_path / "other").write(tmp_path / "other" / "m.parquet")
    output = tmp_path / "both" / "m.parquet"
    merge(
        [tmp_path / "packed" / "manifest.parquet", tmp_path / "other" / "m.parquet"],
        output=output,
        near_duplicate_bits=6,
    )
    both = read(output)
    assert both.missing_files() == []
    assert both.place(10).read() == (tmp_path / "other" / "x.png").read_bytes()
    _, again = packed(both, tmp_path / "again")
    assert [again.place(row).read() for row in range(11)] == [both.place(row).read() for row in range(11)]


def test_ids_that_are_no_plain_names_or_not_unique_give_numbered_members(tmp_path):
    ids = ["../../up", "/root", "a b", "same", "same", "dots.in.it", "x" * 150, "row000000001", "plain-1_2"]
    rows = []
    for number, image_id in enumerate(ids):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "image_id": image_id})
    _, result = packed(from_rows(rows, root=tmp_path), tmp_path / "packed")
    names = [image.split("::")[1] for image in result.table.column("image").to_pylist()]
    numbered = {number: f"row{number:09}.png" for number in (1, 2, 3, 4, 6, 7)}
    assert names == [numbered.get(i, name) for i, name in enumerate(GOOD_NAMES)]
    assert len(set(names)) == len(ids)


def test_a_picture_that_is_gone_or_changed_is_refused(manifest, tmp_path):
    noise = np.random.default_rng(99).integers(0, 256, (10, 20), dtype=np.uint8)
    Image.fromarray(noise).save(manifest.path(0))
    with pytest.raises(ManifestError, match=r"row 0: .* is not the file of the manifest"):
        packed(manifest, tmp_path / "packed")
    manifest.path(0).unlink()
    with pytest.raises(ManifestError, match=r"row 0: .* is not there"):
        packed(manifest, tmp_path / "packed")
    assert not list((tmp_path / "packed").rglob("*.tar*"))


def test_a_folder_with_shards_of_other_pictures_is_refused(manifest, tmp_path):
    packed(manifest, tmp_path / "packed")
    fewer = Manifest(manifest.table.slice(0, 5), manifest.root)
    with pytest.raises(ManifestError, match="holds shards of other pictures"):
        Packing(fewer, tmp_path / "packed", shard_mb=1)
    with pytest.raises(ManifestError, match="or of another --shard-mb"):
        Packing(manifest, tmp_path / "packed", shard_mb=2)
    with pytest.raises(ManifestError, match="give a size from 1"):
        Packing(manifest, tmp_path / "packed", shard_mb=0)


def test_a_packed_row_without_its_offset_is_refused(manifest, tmp_path):
    _, result = packed(manifest, tmp_path / "packed")
    bare = Manifest(result.table.drop_columns(["offset"]), result.root)
    with pytest.raises(ManifestError, match="'offset' and 'num_bytes' do not say where"):
        bare.place(0)
