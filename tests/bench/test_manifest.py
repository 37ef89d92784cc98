"""The benchmark of manifests, on few rows."""

import argparse

from rich.console import Console

from dinov2.bench import manifest as bench


def test_every_step_is_measured_in_a_process_of_its_own(tmp_path):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    result = bench.run(parser.parse_args(["--rows", "3000", "--folder", str(tmp_path)]))
    assert [line["step"] for line in result["steps"]] == list(bench.STEPS)
    assert all(line["peak_bytes"] > 30e6 for line in result["steps"])
    said = {line["step"]: line["what"] for line in result["steps"]}
    assert "flagged as duplicates" in said["merge"]
    assert said["open"].startswith("for training: 3,000 rows")
    assert list(tmp_path.iterdir()) == []
    console = Console(width=200, record=True)
    console.print(bench.table(result))
    assert "manifest of 3,000 rows" in console.export_text()
