import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tree_in_the_readme_has_a_line_for_every_file() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/readme_tree.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_page_that_the_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    for target in {part.split(")")[0] for part in text.split("](")[1:]}:
        assert (ROOT / target.split("#")[0]).exists(), target
