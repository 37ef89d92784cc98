"""docs/start.md is true: its commands run from top to bottom, smaller than printed, and its log has each of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.docs.page import blocks_of
from tests.docs_site.conftest import ROOT

PAGE = ROOT / "docs" / "start.md"
LOG = ROOT / "docs" / "start_log.md"


def test_the_commands_of_the_first_five_minutes_do_what_the_page_says(tmp_path: Path) -> None:
    run = "\n".join(
        [
            "import json, sys",
            "from pathlib import Path",
            "from tests.docs.page import blocks_of",
            "from tests.docs.running import run_blocks",
            "blocks = [b for b in blocks_of(Path(sys.argv[1]).read_text()) if 'not run' not in b.said]",
            "print('faults:', json.dumps(run_blocks(blocks, work=Path(sys.argv[2]))))",
        ]
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", run, PAGE, tmp_path],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    faults = json.loads(done.stdout.rpartition("faults: ")[2])
    assert not faults, "\n\n".join(faults)
    written = {path.name for path in (tmp_path / "first").iterdir()}
    assert {"films", "pictures", "films.html", "crops.png", "run", "scores", "exported"} <= written


def test_the_newcomers_log_has_every_command_of_the_page_and_each_ended_well() -> None:
    log = LOG.read_text()
    blocks = blocks_of(PAGE.read_text())
    assert [block.code for block in blocks if block.code not in log] == []
    assert log.count("exit code 0.") == len(blocks)
    assert "| when | 20" in log
