import pytest

from dinov2.errors import ConfigError
from dinov2.launch import Resources, count_gpus, minutes, sbatch_word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90:30", 91),
        ("02:00:00", 120),
        ("24:00:00", 1440),
        ("00:00:01", 1),
        ("2-0", 2880),
        ("1-12:30", 2190),
        ("1-12:30:00", 2190),
    ],
)
def test_a_time_means_what_it_means_to_sbatch(text, expected):
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "two hours", "1:2:3:4", "12:00:00h", "0", "-5", "1-"])
def test_any_other_time_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="12:00:00"):
        minutes(text)


def test_further_options_are_sbatchs_own():
    assert sbatch_word("constraint=ib&avx512") == ("constraint", "ib&avx512")
    assert sbatch_word("--nice=100") == ("nice", "100")
    assert sbatch_word("exclusive") == ("exclusive", True)


@pytest.mark.parametrize("text", ["array=0-3", "--output=elsewhere", "signal=TERM@1"])
def test_an_option_that_the_array_rests_on_cannot_be_given(text):
    with pytest.raises(ConfigError, match="set by this command"):
        sbatch_word(text)


def test_what_is_no_option_is_refused():
    with pytest.raises(ConfigError, match="constraint=skylake"):
        sbatch_word("=5")


def test_a_further_option_wins_over_ours_and_what_is_not_given_is_left_to_the_cluster():
    parameters = Resources(num_cpus=2, further={"requeue": False, "mem-per-cpu": "2G"}).for_slurm("name")
    assert parameters["additional_parameters"] == {"requeue": False, "mem-per-cpu": "2G"}
    assert parameters["partition"] is None
    assert parameters["srun_args"] == ["--cpus-per-task=2"]


@pytest.mark.parametrize("text", ["nodes=2", "ntasks-per-node=4", "gpus-per-node=8"])
def test_an_option_that_this_command_has_itself_is_refused_so_that_there_are_no_two_answers(text):
    with pytest.raises(ConfigError, match="own options"):
        sbatch_word(text)


@pytest.mark.parametrize(("text", "count"), [("4", 4), ("a100:8", 8), ("nvidia:h100:2", 2)])
def test_gpus_are_counted_with_and_without_their_kind(text, count):
    assert count_gpus(text) == count


@pytest.mark.parametrize("text", ["0", "many", ":4", "a100:", "4:a100", "-1"])
def test_gpus_that_are_no_number_are_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="a100:4"):
        count_gpus(text)


def test_a_job_that_may_not_be_put_back_says_so_to_slurm_once():
    assert Resources(further={"no-requeue": True}).for_slurm("name")["additional_parameters"] == {"no-requeue": True}
    assert Resources().for_slurm("name")["additional_parameters"] == {"requeue": True}
