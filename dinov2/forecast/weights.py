"""Whether the weights to start from are there and fit, from names and shapes alone.

In: a configuration, and networks whose tensors have no values. Out: faults in words. They are read and compared by the
code that loads them, the values left out.
"""

from collections.abc import Iterator, Mapping

from dinov2.config.schema import Config
from dinov2.errors import WeightsError
from dinov2.forecast.rehearsal import Rehearsal
from dinov2.models.weights import Weights, compare_part, read_weights
from dinov2.ssl import Networks

NO_HEAD = "none"  # value of init_from.*_head that leaves a head as initialised


def weight_faults(config: Config, rehearsal: Rehearsal) -> Iterator[str]:
    """What would stop a run from starting from the weights that it names: paths, or ids of the Hugging Face hub."""
    headers: dict[str, Weights] = {}
    networks = rehearsal.networks
    for name in _named(config):
        try:
            headers[name] = read_weights(name, revision=config.init_from.revision or None, values=False)
        except WeightsError as error:
            yield str(error)
    for part, name in _sources(config, networks, headers):
        try:
            compare_part(
                networks.student[part],
                headers[name].part(part),
                source=f"{name} ({part})",
                grid=headers[name].grid,
                allow_missing=config.init_from.allow_missing,
                allow_unexpected=config.init_from.allow_unexpected,
            )
        except WeightsError as error:
            yield str(error)


def _named(config: Config) -> list[str]:
    named = (config.student.pretrained_weights, config.init_from.dino_head, config.init_from.ibot_head)
    return list(dict.fromkeys(name for name in named if name and name != NO_HEAD))


def _sources(config: Config, networks: Networks, headers: Mapping[str, Weights]) -> Iterator[tuple[str, str]]:
    """(part, name) of every part that readable weights fill: heads by `init_from`, else those of the backbone."""
    main = config.student.pretrained_weights
    if main in headers:
        yield "backbone", main
    for head in ("dino_head", "ibot_head"):
        given = getattr(config.init_from, head)
        if head not in networks.student or given == NO_HEAD:
            continue
        if given and given in headers:
            yield head, given
        elif not given and main in headers and head in headers[main].parts:
            yield head, main
