import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "numpy",
    "transformers",
    "pyarrow",
    "cv2",
    "scipy",
    "omegaconf",
    "yaml",
    "pydicom",
    "PIL",
    "SimpleITK",
)


def loaded_after(program: str) -> set[str]:
    """Which of the heavy libraries a fresh process has loaded once it has run `program`."""
    told = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program + told], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1])) & {*HEAVY, "rich"}


def test_importing_the_package_loads_no_library() -> None:
    assert loaded_after("import dinov2; dinov2.__version__") == set()


def test_torch_comes_with_the_first_thing_that_needs_it() -> None:
    assert "torch" in loaded_after("import dinov2; dinov2.Encoder")
    assert "transformers" not in loaded_after("import dinov2; dinov2.Encoder")


def test_help_loads_no_library() -> None:
    program = "from dinov2.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert loaded_after(program) == set()


def test_the_help_of_no_command_loads_torch_or_numpy() -> None:
    program = "from dinov2.cli import COMMANDS, build_parser\nfor name in COMMANDS: build_parser(name)"
    assert loaded_after(program) <= {"rich", "omegaconf", "yaml"}  # progress and tables; the keys of the settings


def test_a_name_that_the_package_has_not_is_an_attribute_error() -> None:
    import dinov2

    with pytest.raises(AttributeError, match="no attribute 'Decoder'"):
        dinov2.Decoder  # noqa: B018
