import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dinov2.errors import WeightsError
from dinov2.formats.writers import WRITERS, check_new, written_whole


def test_a_folder_gets_its_name_when_the_block_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "export"
    with written_whole(folder) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").write_text("whole")
        assert not folder.exists()
    assert (folder / "inner" / "file").read_text() == "whole"
    assert [entry.name for entry in folder.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), written_whole(tmp_path / "export") as partial:
        fail_half_way(partial, error)
    assert list(tmp_path.iterdir()) == []


def test_files_are_as_readable_as_the_folder(tmp_path: Path) -> None:
    with written_whole(tmp_path / "export") as partial:
        save_file({"weight": torch.zeros(2)}, partial / "backbone.safetensors")  # for its owner alone
        partial.chmod(0o755)
    assert (tmp_path / "export" / "backbone.safetensors").stat().st_mode & 0o777 == 0o644


def fail_half_way(partial: Path, error: type[BaseException]) -> None:
    (partial / "file").write_text("half")
    raise error


def test_an_empty_folder_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    with written_whole(tmp_path / "export") as partial:
        (partial / "file").write_text("whole")
    assert (tmp_path / "export" / "file").read_text() == "whole"


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine").write_text("kept")
    with pytest.raises(WeightsError, match="exists and is not empty"), written_whole(tmp_path / "export"):
        pass
    assert (tmp_path / "export" / "mine").read_text() == "kept"
    with pytest.raises(WeightsError, match="exists and is not empty"):
        check_new(tmp_path / "export" / "mine")


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="could not be written"), written_whole(tmp_path / "file" / "export"):
        pass


KILLED = """
import sys, time
from pathlib import Path
from dinov2.formats.writers import written_whole
with written_whole(Path(sys.argv[1])) as partial:
    (partial / "file").write_text("half")
    print("in", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_export_left_is_no_export_and_is_removed_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        process.send_signal(signal.SIGKILL)
    assert [entry.name for entry in tmp_path.iterdir()] == [".partial-export"]
    with written_whole(folder) as partial:
        assert list(partial.iterdir()) == []
        (partial / "other").write_text("whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["export"]


def test_every_format_has_a_writer() -> None:
    assert list(WRITERS) == ["dinov2", "transformers", "onnx", "timm"]
    assert all(callable(writer) for writer in WRITERS.values())
    assert "keras" not in WRITERS
    with pytest.raises(KeyError):
        WRITERS["keras"]


def test_our_own_format_needs_the_libraries_of_no_other() -> None:
    words = (
        "import sys; from dinov2.formats.writers import WRITERS; 'onnx' in WRITERS; WRITERS['dinov2'];"
        "print([name for name in ('transformers', 'onnx', 'onnxruntime', 'timm', 'jinja2') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
