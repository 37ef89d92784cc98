"""Writes the tree in README.md: a line per file, from the first sentence of each file.

python scripts/readme_tree.py          rewrites the part between the two markers
python scripts/readme_tree.py --check  says whether it is up to date (exit code 1 if not)
"""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- tree: begin -->", "<!-- tree: end -->"
SHOWN = ("dinov2", "configs", "scripts", "docs")
TOP_LEVEL = ("pyproject.toml", "CONTRIBUTING.md", "LICENSE", ".ci/run")
FIXED = {
    "pyproject.toml": "dependencies and extras, ruff, mypy, pytest, import contracts",
    "LICENSE": "Apache-2.0",
    ".ci/run": "what continuous integration runs",
}
LEFT_OUT = (".png", ".svg", ".css")
TESTS = "mirrors dinov2/ file by file; beside it reference/, integration/, distributed/"


def first_words(path: Path) -> str:
    """What a file says of itself in its first sentence or heading."""
    text = path.read_text()
    if path.suffix == ".py":
        words = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    else:
        lines = [line.strip("# ").strip() for line in text.splitlines() if line.startswith("#") and line[1:2] != "!"]
        words = lines[0] if lines else ""
    return " ".join(words.split()).split(". ")[0].rstrip(".")


def tracked() -> list[Path]:
    """Files of the repository, the uncommitted ones included."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({ROOT / name for name in listed if (ROOT / name).is_file()})


def tree() -> str:
    """The whole block, fences included."""
    files = [path for path in tracked() if path.suffix not in LEFT_OUT]
    lines = [f"{name:<28} {FIXED.get(name) or first_words(ROOT / name)}" for name in TOP_LEVEL]
    folder = None
    in_order = sorted(files, key=lambda path: (path.parent, path.name))
    for path in (p for top in SHOWN for p in in_order if p.relative_to(ROOT).parts[0] == top):
        relative = path.relative_to(ROOT)
        if relative.parent != folder:
            folder = relative.parent
            room = path.parent / "__init__.py"
            says = first_words(room) if room.is_file() else ""
            lines.append(f"{folder.as_posix() + '/':<28} {says}".rstrip())
        if path.name != "__init__.py":
            lines.append(f"  {path.name:<26} {first_words(path)}".rstrip())
    lines.append(f"{'tests/':<28} {TESTS}")
    return "\n".join([BEGIN, "```", *lines, "```", END])


def main() -> int:
    """Rewrites or checks; returns the exit code."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    wanted = before + tree() + after
    if "--check" in sys.argv[1:]:
        if text != wanted:
            print("README.md: the tree is out of date; run `python scripts/readme_tree.py`.", file=sys.stderr)
        return int(text != wanted)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
