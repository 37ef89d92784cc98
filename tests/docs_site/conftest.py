"""The site, built once for all tests that look at it, as `bash scripts/docs.sh` builds it."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; a link that leads nowhere, or a page that is in no menu, fails here."""
    pytest.importorskip("material", reason="pip install 'mkdocs-material>=9.5,<10'")
    return built(tmp_path_factory.getbasetemp() / "site")


@functools.cache  # tests/browser has this fixture too, which would be another one
def built(folder: Path) -> Path:
    """The folder; fails where the site does not build."""
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
