import argparse

from dinov2.bench import checkpoint as bench

SMALL = ["--arch", "vit_custom", "--prototypes", "64", "--rounds", "1", "--idle-seconds", "0.05", "--device", "cpu"]


def test_a_measurement_over_two_processes_has_a_row_each_way() -> None:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    result = bench.run(parser.parse_args([*SMALL, "--processes", "2"]))
    background, foreground = result["rows"]["background"], result["rows"]["foreground"]
    assert 0 < background["blocked"] <= background["whole"]
    assert foreground["products"] is None, "nothing runs while training waits"
    assert len(background["whole_all"]) == 2
    assert result["bytes"] > 10**7
    assert bench.table(result).row_count == 2
