"""What the import contracts do not see."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from dinov2.cli import COMMANDS

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "dinov2").rglob("*.py"))


@pytest.mark.parametrize(
    "module",
    [
        "dinov2",
        "dinov2.cli",
        "dinov2.manifest",
        "dinov2.config",
        "dinov2.preprocess.work.convert",
        "dinov2.phantom.series",
    ],
)
def test_a_conversion_starts_without_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_help_answers_without_importing_any_room() -> None:
    code = (
        "import sys, contextlib, dinov2.cli as cli\n"
        "with contextlib.suppress(SystemExit): cli.main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'cv2', 'pyarrow', 'SimpleITK', 'pydicom', 'omegaconf'} & set(sys.modules)\n"
        "sys.exit(bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "preprocess" in done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_opens_with_what_comes_in_and_goes_out_and_stays_short(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring
    assert text.count("\n") <= 400


def test_sharding_has_one_home() -> None:
    """Contracts cannot name a part of an outside package."""
    users = [path.relative_to(ROOT).as_posix() for path in FILES if "torch.distributed.fsdp" in path.read_text()]
    assert users == ["dinov2/distributed/shard.py"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str) -> None:
    words = [sys.executable, "-m", "dinov2", command, "--help"]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"dinov2 {command}") >= 3, "the usage line and two examples"


def test_a_word_that_is_no_command_is_a_mistake_of_the_users() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dinov2", "trian"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "train" in done.stderr


def test_no_code_decides_which_gpus_are_visible() -> None:
    """An evaluation that sets CUDA_VISIBLE_DEVICES cannot run on the GPUs that were asked for. doctor reads it."""
    sources = [path for path in (ROOT / "dinov2").rglob("*.py") if path.parent.name != "doctor"]
    sources += [*(ROOT / "slurm").iterdir(), *(ROOT / "scripts").iterdir()]
    assert not [path.name for path in sources if path.is_file() and "CUDA_VISIBLE_DEVICES" in path.read_text()]
