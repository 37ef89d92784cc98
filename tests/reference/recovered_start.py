"""The start of a recorded trajectory whose file holds its end in the start's place.

In: final student and teacher, and a way to replay the steps. Out: the weights that the steps began with.

A recorder that keeps references to weights instead of copies writes the same tensors as start and end, so the start has
to be found. With S0 the start, u1..un the updates of the n steps and a0..an the weights of the teacher's average over
the students S0..Sn,

    final student = S0 + u1 + ... + un          final teacher = a0 S0 + a1 S1 + ... + an Sn

and with c_k = a0 + ... + a_(k-1), any C gives  S0 = Sn + (Tn - Sn) / C + sum over k of (c_k / C - 1) u_k.  The factors
c_k / C - 1 are small, so replaying and solving for S0 contracts where Sn - (u1 + ... + un) would not. The start has as
many unknowns as the final student alone has numbers; the final teacher, the losses and the gradient norms are left over
to check against.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, Tensor]
Replay = Callable[[State], list[State]]
"""Start -> the students after 0, 1, ..., n steps, and last the teacher after n."""

CONTRACTIONS = (0.88, 0.84, 0.92)
NOISE = 1e-4
ROUNDING = 3e-8
NUM_ROUNDS = 40
ROUNDS_TO_FIND_THE_WAY = 8
ROUNDS_OF_PLAIN_POLISH = 20
NUM_TRIES = 60
CLOSE = 9e-5  # below the tolerance of the final weights, 1e-4
SETTLED = 2e-5  # a number this near its end is left alone
FEW = 0.001  # share of numbers that are off when a try has found its way
NEAR = 3e-4  # from here on chance alone leads on: one start in four within rounding of this one is close
NUM_SHAKES = 40


def is_missing(start: State, end: State) -> bool:
    """Whether the recorded start is the end, tensor for tensor."""
    return all(torch.equal(start[name], end[name]) for name in end)


def recover_start(student: State, teacher: State, *, momenta: list[float], replay: Replay) -> State:
    """The start from which `replay` ends nearest to `student` and `teacher`, over several tries.

    Teacher targets are nearly one-hot in places, so a try can settle where one of them is wrong; each begins elsewhere.
    """
    sums = _cumulative_weights(momenta)
    best, smallest = student, math.inf
    for attempt in range(NUM_TRIES):
        start = _first_guess(student, teacher, seed=attempt)
        for round_ in range(NUM_ROUNDS):
            *students, average = replay(start)
            distance = max(_distance(students[-1], student), _distance(average, teacher))
            if distance < smallest:
                best, smallest = start, distance
            if smallest < NEAR:
                best, smallest = _shaken(best, smallest, student, teacher, replay=replay)
            if smallest < CLOSE:
                return best
            share_off = _share_off(students[-1], student)
            if round_ >= ROUNDS_TO_FIND_THE_WAY and share_off > FEW:
                break
            if share_off < FEW and round_ % 2:
                shake = ROUNDING if round_ > ROUNDS_OF_PLAIN_POLISH else 0.0
                start = _polished(start, students[-1], student, shake=shake, seed=round_)
            else:
                start = _solved(
                    student,
                    teacher,
                    students,
                    sums=sums,
                    contraction=CONTRACTIONS[round_ % 3],
                )
    return best


def _shaken(best: State, smallest: float, student: State, teacher: State, *, replay: Replay) -> tuple[State, float]:
    """The best of starts that differ from `best` by rounding, and its distance; the first that is close ends it.

    What is still off then has a gradient as small as Adam's epsilon, which rounding changes by tenths.
    """
    found = best
    for seed in range(NUM_SHAKES if smallest >= CLOSE else 0):
        generator = torch.Generator().manual_seed(seed)
        start = {name: v + ROUNDING * torch.randn(v.shape, generator=generator) for name, v in best.items()}
        *students, average = replay(start)
        distance = max(_distance(students[-1], student), _distance(average, teacher))
        if distance < smallest:
            found, smallest = start, distance
        if smallest < CLOSE:
            break
    return found, smallest


def _cumulative_weights(momenta: list[float]) -> list[float]:
    weights = [math.prod(momenta)]
    weights += [(1 - momenta[k]) * math.prod(momenta[k + 1 :]) for k in range(len(momenta))]
    return [sum(weights[: k + 1]) for k in range(len(momenta))]


def _first_guess(student: State, teacher: State, *, seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: final
        + (teacher[name] - final) / CONTRACTIONS[0]
        + NOISE * torch.randn(final.shape, generator=generator) * (teacher[name] != final)
        for name, final in student.items()
    }


def _solved(student: State, teacher: State, students: list[State], *, sums: list[float], contraction: float) -> State:
    solved = {}
    for name, final in student.items():
        value = final + (teacher[name] - final) / contraction
        for k, weight in enumerate(sums):
            value = value + (weight / contraction - 1) * (students[k + 1][name] - students[k][name])
        solved[name] = value
    return solved


def _polished(start: State, reached: State, student: State, *, shake: float, seed: int) -> State:
    """Moves the few numbers that are off by as much as they are off.

    Their gradient is next to nothing in some step, and its sign, which is all that Adam's first step keeps, hangs on
    rounding. Where moving them does not settle it, all numbers are shaken by about as much as rounding does.
    """
    generator = torch.Generator().manual_seed(seed)
    moved = {}
    for name, final in student.items():
        off = final - reached[name]
        shaken = start[name] + shake * torch.randn(final.shape, generator=generator)
        moved[name] = shaken + torch.where(off.abs() > SETTLED, off, torch.zeros_like(off))
    return moved


def _share_off(reached: State, student: State) -> float:
    off = sum(int(((reached[name] - final).abs() > SETTLED).sum()) for name, final in student.items())
    return off / sum(final.numel() for final in student.values())


def _distance(one: State, other: State) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in other)
