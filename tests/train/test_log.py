from pathlib import Path

from dinov2.train.log import JsonLines, read_lines


def test_lines_after_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    with JsonLines(path, keep_until_step=0) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step / 3})
    whole = path.read_text()
    path.write_text(whole + '{"step": 4, "lo')  # killed while writing
    with JsonLines(path, keep_until_step=2) as log:
        log.write(3, {"loss": 1.0})
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3]
    assert path.read_text().splitlines()[:2] == whole.splitlines()[:2], "kept lines stay byte for byte"


def test_a_number_that_is_not_finite_is_null_so_that_the_file_stays_json(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    with JsonLines(path, keep_until_step=0) as log:
        log.write(1, {"loss": float("nan")})
    assert read_lines(path) == [{"step": 1, "loss": None}]


def test_there_is_nothing_to_read_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none.json") == []
