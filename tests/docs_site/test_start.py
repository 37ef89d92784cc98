"""docs/start.md and docs/walkthrough.md are true: their commands run from top to bottom, smaller than printed; and the
newcomer's log has each command of the first and names nobody.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.docs_log import names_of_this_machine, printed
from tests.docs.page import blocks_of
from tests.docs.test_using import alone
from tests.docs_site.conftest import ROOT

START = ROOT / "docs" / "start.md"
WALK = ROOT / "docs" / "walkthrough.md"
LOG = ROOT / "docs" / "start_log.md"
RUN = """
import json, sys
from pathlib import Path
from tests.docs.page import blocks_of
from tests.docs.running import run_blocks
blocks = [block for block in blocks_of(Path(sys.argv[1]).read_text()) if "not run" not in block.said]
print("faults:", json.dumps(run_blocks(blocks, work=Path(sys.argv[2]))))
"""
# What the walk begins with, made from what the first five minutes left: an archive, its table, another evaluation that
# has three of its films, and public weights in a cache of the hub.
PREPARE = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from tests.docs.stand_ins import _in_cache, _rad_dino
work = Path(sys.argv[1])
(work / "ARCHIVE").symlink_to(work / "first" / "films" / "dicom")
(work / "films.csv").symlink_to(work / "first" / "films" / "labels.csv")
(work / "OTHER").symlink_to(work / "first" / "pictures")
pq.write_table(pq.read_table(work / "OTHER" / "split.parquet").slice(0, 3), work / "OTHER" / "evaluation.parquet")
_rad_dino(_in_cache(work / "hub", "microsoft/rad-dino"))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the pages run, one after the other; its key makes ids and splits the same each time."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "key").write_text("0123456789abcdef" * 4 + "\n")
    return folder


@pytest.fixture(scope="module")
def started(work: Path) -> list[str]:
    """Faults of the first five minutes."""
    return faults_of(START, work=work)


def test_the_commands_of_the_first_five_minutes_do_what_the_page_says(started: list[str], work: Path) -> None:
    assert not started, "\n\n".join(started)
    written = {path.name for path in (work / "first").iterdir()}
    assert {"films", "pictures", "films.html", "crops.png", "run", "report.html", "scores", "exported"} <= written


def test_the_commands_of_the_whole_way_lead_from_an_archive_to_a_score(started: list[str], work: Path) -> None:
    assert not started, "the first page failed"
    python("-c", PREPARE, work, work=work)
    faults = faults_of(WALK, work=work)
    assert not faults, "\n\n".join(faults)
    assert (work / "leak.csv").read_text().count("sha256") == 3, "films that are in both"
    written = ("RUN/exports/best/backbone.safetensors", "run.html", "scores/ours/page.html", "map/index.html", "HF")
    assert [name for name in written if not (work / name).exists()] == []


def test_every_command_of_the_whole_way_is_run() -> None:
    blocks = blocks_of(WALK.read_text())
    assert WALK.read_text().count("```") == 2 * len(blocks), "a block that nobody runs"
    assert [block.code for block in blocks if "not run" in block.said] == []


def test_the_newcomers_log_has_every_command_of_the_page_and_each_ended_well() -> None:
    log = LOG.read_text()
    blocks = blocks_of(START.read_text())
    assert [block.code for block in blocks if block.code not in log] == []
    assert log.count("exit code 0.") == len(blocks)
    assert "| when | 20" in log


def test_the_newcomers_log_names_no_machine_and_nobody() -> None:
    assert names_of_this_machine(LOG.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "pictures at /home/ada/dinov2/first",
        "wrote /tmp/tmpab12cd/other/run",
        "Looking in indexes: https://pypi.example.org/simple",
        "links: file:///opt/wheels",
    ],
)
def test_a_line_that_names_a_machine_is_noticed(line: str) -> None:
    assert names_of_this_machine(line)


def test_the_clone_is_shown_as_a_newcomers_own_and_colours_are_left_out() -> None:
    clone = Path("/tmp/tmpab12cd/dinov2")
    output = f"half\rwhole \x1b[32mgreen\x1b[0m\nWARNING: Location '/x' is ignored\n{clone}/first/run\n{clone.parent}\n"
    assert printed(output, clone=clone) == "whole green\n~/dinov2/first/run\n~"
    assert names_of_this_machine(printed(output, clone=clone)) == []


def faults_of(page: Path, *, work: Path) -> list[str]:
    """What did not do what the page says, in words."""
    done = python("-c", RUN, page, work, work=work)
    print(done.stderr)
    faults: list[str] = json.loads(done.stdout.rpartition("faults: ")[2])
    return faults


def python(*words: object, work: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own that reaches no network and finds the stand-ins in the hub's cache."""
    environment = alone(work) | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done
