import argparse

import pytest

from dinov2.bench import resume as bench


def test_a_measurement_has_a_row_a_step_whose_parts_make_up_the_whole() -> None:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    words = ["--rows", "500", "--steps", "1000000", "--rounds", "1", "--arch", "vit_custom", "--batch-size", "1"]
    result = bench.run(parser.parse_args(words))
    assert [row["step"] for row in result["rows"]] == [1_000_000]
    for row in result["rows"]:
        assert sum(row[part] for part in bench.PARTS) == pytest.approx(row["total"], rel=0.5)
        assert row["checkpoint"] > 0
    assert bench.table(result).row_count == 1
