"""`dinov2 doctor`: what this machine can do, what `auto` would choose on it, what is missing and what brings it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli import COMMANDS
from dinov2.errors import Dinov2Error

if TYPE_CHECKING:
    from dinov2.config.schema import Config
    from dinov2.doctor import Finding

BROKEN = 2
EXAMPLES = """examples:
  dinov2 doctor
  dinov2 doctor --config-file vitb14_cxr runtime.precision=bf16      what a certain run would choose here
  dinov2 doctor --json > machine.json                                for a bug report

Exit codes: 0 a training can run here; 2 something that it needs is broken, each with what mends it."""
HEADINGS = {
    "versions": "libraries",
    "devices": "this machine",
    "places": "places",
    "films": "films that can be read",
    "cluster": "cluster",
    "choices": "what a training would choose, and why",
}
MARKS = {"good": ("ok", "green"), "note": ("note", "yellow"), "absent": ("absent", "cyan"), "broken": ("BROKEN", "red")}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "doctor",
        help=COMMANDS["doctor"],
        description="Load the libraries, try every device and decoder, and say what is missing. Uses no network.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        metavar="F",
        help="choose for this configuration: a YAML file or a shipped name (default: none)",
    )
    parser.add_argument("--json", nargs="?", const="-", metavar="F", help="as JSON on standard output, or into F")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that win over the file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Looks at everything and shows it."""
    if arguments.json and "=" in arguments.json:  # `--json a.b=c`: the word is a setting, not a file
        arguments.overrides, arguments.json = [arguments.json, *arguments.overrides], "-"
    try:
        config = _config(arguments)
        from dinov2.cli.console import stderr, stdout
        from dinov2.doctor import examine
    except Dinov2Error:
        raise
    except Exception as error:  # a library that the command line itself needs does not load
        return _look_without(error)
    with stderr.status("looking") as status:
        findings = examine(config, say=lambda topic: status.update(f"looking at {HEADINGS[topic]}"))
    broken = [finding for finding in findings if finding.verdict == "broken"]
    text = as_json(findings)
    if arguments.json == "-":
        print(text)
        return BROKEN if broken else 0
    _show(findings)
    if arguments.json is not None:
        Path(arguments.json).write_text(text + "\n", encoding="utf-8")
        stdout.print(f"written: {arguments.json}", markup=False)
    _say_what_next(findings, num_broken=len(broken))
    return BROKEN if broken else 0


def _config(arguments: argparse.Namespace) -> "Config":
    from dinov2.config.load import load_config
    from dinov2.config.presets import find_config

    file = find_config(arguments.config_file) if arguments.config_file else None
    return load_config(file, overrides=arguments.overrides).config


def as_json(findings: "Sequence[Finding]") -> str:
    """One object: whether a training can run, and every finding."""
    from dataclasses import asdict

    can_train = all(finding.verdict != "broken" for finding in findings)
    return json.dumps({"can_train": can_train, "findings": [asdict(finding) for finding in findings]}, indent=1)


def _look_without(error: Exception) -> int:
    """Where a library that prints or reads configurations does not load: the versions alone, in plain words."""
    from dinov2.doctor.finding import first_line

    print(f"dinov2 doctor: a library that every command needs cannot be loaded: {first_line(error)}", file=sys.stderr)
    mends = ["pip install --force-reinstall dinov2"]
    try:
        from dinov2.config.schema import Config
        from dinov2.doctor import versions

        broken = [finding for finding in versions.examine(Config()) if finding.verdict == "broken"]
    except Exception:  # the versions need a library too; the message above names it
        broken = []
    for finding in broken:
        print(f"  {MARKS['broken'][0]}  {finding.name} {finding.value}: {finding.why}", file=sys.stderr)
    for mend in dict.fromkeys(finding.mend for finding in broken) if broken else mends:
        print(f"  -> {mend}", file=sys.stderr)
    print("Mend this first, then: dinov2 doctor", file=sys.stderr)
    return BROKEN


def _show(findings: "Sequence[Finding]") -> None:
    from rich.text import Text

    from dinov2.cli.console import stdout

    width = max(len(finding.name) for finding in findings)
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            stdout.print(("\n" if finding is not findings[0] else "") + HEADINGS[topic], style="bold", markup=False)
        mark, style = MARKS[finding.verdict]
        line = Text(f"  {mark:6}  ", style=style).append(f"{finding.name:{width}}  ", style="bold")
        stdout.print(line.append(finding.value, style="not bold default"))
        for words in filter(None, (finding.why, finding.mend and f"-> {finding.mend}")):
            stdout.print(f"{'':{width + 12}}{words}", style="dim" if words == finding.why else "cyan", markup=False)


def _say_what_next(findings: "Sequence[Finding]", *, num_broken: int) -> None:
    from dinov2.cli.console import stdout

    absent = dict.fromkeys(finding.name for finding in findings if finding.verdict == "absent")
    if num_broken:
        words = f"{num_broken} thing(s) are broken that a training needs. Mend them, then: dinov2 doctor"
        stdout.print(f"\n{words}", style="red", markup=False)
        return
    stdout.print("\na training can run here.", style="green")
    if absent:
        stdout.print(f"absent, and only needed for what is said above: {', '.join(absent)}", markup=False)
    stdout.print("next: dinov2 phantom --output films --count 60", markup=False)
