import argparse

import pytest

from dinov2.bench import allocator as bench
from dinov2.distributed.host_memory import OF_USERS
from dinov2.errors import ConfigError

SMALL = ("--batch-size=2", "--global-size=56", "--local-size=28", "--local-crops=2", "--prototypes=64")


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args([*SMALL, "--encode-arch=vit_small", "--turns=1", *words])


def test_either_kind_of_process_tells_seconds_page_faults_and_memory() -> None:
    result = bench.run(arguments("--encode-batch=2", "--encode-size=56", "--precision=fp32", "--repeats=2"))
    step, encode = result["rows"]
    assert (step["subject"], encode["subject"]) == ("step", "encode")
    for row in result["rows"]:
        for side in ("kept", "given_back"):
            assert len(row[side]["seconds_all"]) == len(row[side]["page_faults_all"]) == 2
            assert row[side]["peak_bytes"] > 2**27
        assert row["speed_up"] == row["given_back"]["seconds"] / row["kept"]["seconds"]
    shown = bench.table(result)
    assert shown.row_count == 2
    assert "2 pictures of 56 pixels, vit_small/14" in str(shown.caption)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--turns=0"], "--turns 0: expected 1 or more"),
        (["--encode-batch=0"], "--encode-batch 0: expected 1 or more"),
        (["--encode-size=500"], "--encode-size 500: no multiple of the patch, 14. Give 490"),
        (["--device=cuda"], "--device cuda: this measures a CPU"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench.run(arguments(*words))


def test_settings_of_the_user_for_malloc_are_not_measured_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OF_USERS[0], "1000")
    with pytest.raises(ConfigError, match="MALLOC_ variables are set"):
        bench.run(arguments())
