import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from dinov2.errors import LaunchError
from dinov2.preprocess.work.identity import read_or_create
from dinov2.preprocess.work.places import find_places, private_folder, share_folder
from tests.preprocess.films import KEY, convert, rejects_of, rows_of, write_few_films


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_few_films(tmp_path / "films")


def test_the_shares_together_are_the_whole(folder, tmp_path):
    (tmp_path / "key").write_text(KEY)
    convert(folder, tmp_path / "whole", key_file=tmp_path / "key")
    rows, rejects = [], {}
    for number in (1, 2, 3):
        convert(folder, tmp_path / "out", key_file=tmp_path / "key", share=(number, 3))
        share = share_folder(tmp_path / "out", number=number, count=3)
        rows += rows_of(share)
        rejects |= rejects_of(share)
        assert all((share / row["image"]).is_file() for row in rows_of(share))
    assert sorted(rows, key=lambda row: row["source"]) == rows_of(tmp_path / "whole")
    assert rejects == rejects_of(tmp_path / "whole")


def test_shares_have_one_key_and_a_private_folder_each(folder, tmp_path):
    for number in (1, 2):
        convert(folder, tmp_path / "out", share=(number, 2))
    home = tmp_path / "out.private"
    assert (home / "id_key").stat().st_mode & 0o777 == 0o600
    assert (home / "shares/1-of-2/state.sqlite").exists()
    assert not (home / "shares/1-of-2/id_key").exists()
    assert not (tmp_path / "out/shares.private").exists()
    patients = {row["patient"] for n in (1, 2) for row in rows_of(tmp_path / f"out/shares/{n}-of-2")}
    assert len(patients - {None}) == 1


def test_another_number_of_shares_or_none_is_refused(folder, tmp_path):
    convert(folder, tmp_path / "out", share=(1, 2))
    with pytest.raises(LaunchError, match="begun in 2 shares, not 3"):
        convert(folder, tmp_path / "out", share=(1, 3))
    with pytest.raises(LaunchError, match="Go on with --share"):
        convert(folder, tmp_path / "out")
    convert(folder, tmp_path / "plain")
    with pytest.raises(LaunchError, match="begun without --share"):
        convert(folder, tmp_path / "plain", share=(1, 2))


def test_a_share_without_a_file_is_no_mistake(tmp_path):
    films = write_few_films(tmp_path / "films")
    summaries = [convert(films, tmp_path / "out", share=(number, 40))[0] for number in range(1, 41)]
    empty = next(summary for summary in summaries if not summary.num_files)
    assert rows_of(empty.manifest.parent) == []
    empty.check(max_rejected_share=0)


def test_folders_of_shares_sort_in_their_order():
    names = [share_folder(Path("out"), number=number, count=100).name for number in (1, 20, 100)]
    assert names == ["001-of-100", "020-of-100", "100-of-100"]
    assert find_places(Path("out"), share=(3, 20)).private == Path("out.private/shares/03-of-20")


def test_the_private_folder_lies_beside_the_output(tmp_path, monkeypatch):
    assert private_folder(Path("a/out")) == Path("a/out.private")
    monkeypatch.chdir(tmp_path)
    assert private_folder(Path()) == tmp_path.with_name(tmp_path.name + ".private")
    assert private_folder(Path("out"), private=Path("/safe")) == Path("/safe")


def test_many_tasks_that_start_at_once_agree_on_one_key(tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        keys = set(pool.map(_key, [tmp_path / "id_key"] * 24))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["id_key"]


def _key(path: Path) -> bytes:
    return read_or_create(path, create=True).key
