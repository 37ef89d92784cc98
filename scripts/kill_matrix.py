"""Kills real runs at random moments, continues each by the same command, and compares it with one that nobody killed.

python scripts/kill_matrix.py --points 40 --seed 0 --output kills
Prints a line per kill and a table at the end; exit code 1 where a run did not go on exactly.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.integration.equality import largest_differences
from tests.integration.kills import Bench, Kind, Outcome, Setting, draw_points
from tests.integration.runs import write_pictures, write_tiny_config


def main() -> int:
    """Draws the points, kills, counts."""
    arguments = _arguments()
    folder = arguments.output or Path(tempfile.mkdtemp(prefix="kills_"))
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, config=write_tiny_config(folder), pictures=write_pictures(folder / "pictures"))
    outcomes: list[Outcome] = []
    worst = (0.0, 0.0)
    for i, point in enumerate(draw_points(arguments.points, seed=arguments.seed), start=1):
        same = point.before == point.after
        # every third run at an unchanged number of processes is in half precision
        setting = Setting.HALF if same and i % 3 == 0 else None
        (outcome,) = bench.judge([point], name=f"{i:03d}", setting=setting)
        outcomes.append(outcome)
        print(f"{i:3d}  {point}: {_verdict(outcome)}", flush=True)
        for fault in outcome.faults:
            print(f"     {fault}", flush=True)
        if not outcome.faults:
            if not same:
                found = largest_differences(folder / f"{i:03d}" / "run", bench.whole_run(Setting.ELASTIC, size=1))
                worst = (max(worst[0], found[0]), max(worst[1], found[1]))
            shutil.rmtree(folder / f"{i:03d}")
    table = _table(outcomes)
    print(f"\n{table}\n\nAt another number of processes every number of the metrics is within {worst[0]:.1g} of its")
    print(f"value, every exported weight within {worst[1]:.1g}; at the same number all bytes are equal.")
    (folder / "kills.md").write_text(table + "\n")
    (folder / "kills.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    killed = sum(outcome.happened for outcome in outcomes)
    failed = sum(bool(outcome.faults) for outcome in outcomes)
    print(f"{killed} kills ({len(outcomes) - killed} more came too late), {failed} with faults; seed {arguments.seed}")
    print(f"folder: {folder}")
    return int(failed > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=40, help="how many kills (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments (default 0)")
    parser.add_argument("--output", type=Path, help="where runs, table and JSON lie; default: a temporary folder")
    return parser.parse_args()


def _verdict(outcome: Outcome) -> str:
    if outcome.faults:
        return "FAULTY"
    if not outcome.happened:
        return "through before the kill, unharmed"
    where = f"from step {outcome.checkpoint}" if outcome.checkpoint else "from the beginning"
    return f"went on {where}{', a half save thrown away' if outcome.half_saved else ''}"


def _table(outcomes: list[Outcome]) -> str:
    """Resumed exactly / killed, by kind and numbers of processes; a run that was through before is no kill."""
    killed = [one for one in outcomes if one.happened]
    worlds = list(dict.fromkeys((one.point.before, one.point.after) for one in outcomes))
    heads = [f"{before} → {after}" for before, after in worlds]
    lines = [f"| resumed exactly / killed | {' | '.join(heads)} | all |", "|---|" + "---|" * (len(worlds) + 1)]
    for kind in (*Kind, None):
        of_kind = [one for one in killed if kind in (None, one.point.kind)]
        cells = [_cell(of_kind, world) for world in (*worlds, None)]
        if of_kind:
            lines.append(f"| {kind or 'all'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(killed: list[Outcome], world: tuple[int, int] | None) -> str:
    here = [one for one in killed if world in (None, (one.point.before, one.point.after))]
    return f"{sum(not one.faults for one in here)}/{len(here)}" if here else ""


if __name__ == "__main__":
    sys.exit(main())
