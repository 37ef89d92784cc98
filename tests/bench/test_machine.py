import json
import platform

import torch

from dinov2.bench.ceilings import MatrixRates, copy_rate, matrix_rate, matrix_rates
from dinov2.bench.machine import device_of, machine_facts
from dinov2.bench.resident import memory_available, memory_installed, resident_now, resident_peak

CPU = torch.device("cpu")


def test_the_facts_are_plain_and_name_machine_and_versions() -> None:
    facts = machine_facts(CPU)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["torch"] == torch.__version__
    assert facts["python"] == platform.python_version()
    assert facts["device"] == facts["cpu"] != ""
    assert facts["opencv"]
    assert facts["date"].endswith("+00:00")


def test_a_machine_can_multiply_and_copy() -> None:
    rates = matrix_rates(device=CPU, dtype=torch.float32, seconds=0.01)
    assert min(rates.torch, rates.blocks) > 1e9
    assert matrix_rate(device=CPU, dtype=torch.float32, seconds=0.01) > 1e9
    assert copy_rate(device=CPU, seconds=0.01) > 1e8


def test_the_ceiling_is_the_faster_way_to_multiply_and_the_highest_of_several_is_taken_of_each() -> None:
    one, other = MatrixRates(torch=2.0, blocks=3.0), MatrixRates(torch=4.0, blocks=1.0)
    assert (one.best, other.best) == (3.0, 4.0)
    assert MatrixRates.highest([one, other]) == MatrixRates(torch=4.0, blocks=3.0)


def test_what_a_process_holds_is_at_most_its_peak_and_less_than_the_machine_has() -> None:
    assert 2**20 < resident_now() <= resident_peak() < memory_installed()
    assert memory_available() <= memory_installed()


def test_the_processor_is_taken_where_it_is_asked_for() -> None:
    assert device_of("cpu") == CPU
