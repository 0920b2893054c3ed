"""Measures speed and memory of the library on this machine, as ratios in one run; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ is never installed

from benchmarks.ceilings import describe_machine, measure_ceilings
from benchmarks.measurement import Group, Record, measure
from benchmarks.memory import Peak, available, peak_of, release
from benchmarks.network_cache import NetworkCache
from benchmarks.report import SCHEMA, markdown, ratio_text, write
from benchmarks.sections import SECTIONS
from benchmarks.workers import Worker
from clcae.command import make_parser, run_command
from clcae.device import pick_device
from clcae.ops.memory import keep_freed_memory

NAME = "benchmark.py"
DEFAULT = [name for name in SECTIONS if name != "training-1024"]
LIMIT, QUICK_LIMIT = 20.0, 1.5  # seconds
GIB = 1 << 30
EXAMPLES = """
sections:
{sections}

examples:
  python scripts/benchmark.py
      everything, a quarter of an hour on two slow cores; the table goes to stdout
  python scripts/benchmark.py --quick
      the shipped portraits' networks and 256 pixels: a minute and a half
  python scripts/benchmark.py --only generator,inversion --json speed.json
      two sections, with every figure in a file
  python scripts/benchmark.py --only generator --compile --limit 60
      torch.compile too, and more rounds
  python scripts/benchmark.py --only scaling --threads 8

What is compared takes turns (a, b, a, b, ...); every figure is a median, with lowest and highest
beside it. One round goes first and does not count, at least two do; but where the first takes six
times --limit it is the only one. "3x3 convolution / clcae, seconds an operation" is the share of
what a plain convolution reaches. The "plain program" is the textbook in a process of its own,
without the setting of memory that the commands make for themselves. Peak memory on a CPU is that of
a process of its own beyond what it held with everything built. No file is needed: the weights are
random and of official size. benchmarks/README.md has figures, and what they mean.
"""


class Run:
    """Measures the sections that were asked for, and notes what could not be measured."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.memory = "kept" if options.memory == "kept" and keep_freed_memory() else "returned"
        self.begun = time.perf_counter()
        self.device = pick_device(options.device)
        self.limit = options.limit or (QUICK_LIMIT if options.quick else LIMIT)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        self.left_out: list[str] = []
        self.failed = self.stopped = False
        self.networks = NetworkCache(
            device=self.device,
            compile=options.compile,
            memory_kept=self.memory == "kept" and self.device.type == "cpu",
        )

    def report(self) -> dict[str, Any]:
        """Measures everything; writes what is finished as soon as it is there."""
        options = self.options
        self.say("ceilings of the machine")
        report: dict[str, Any] = {
            "schema": SCHEMA,
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "settings": {
                "sections": options.only,
                "quick": options.quick,
                "compile": options.compile,
                "memory": self.memory,
                "limit": self.limit,
            },
            "machine": describe_machine(self.device),
            "ceilings": measure_ceilings(self.device, small=options.quick),
            "sections": {},
            "left_out": self.left_out,
        }
        try:
            for section in options.only:
                records = report["sections"].setdefault(section, [])
                for record in self.section(section, report["ceilings"]):
                    records.append(record)
                    self._save(report)
                if not records and not self.failed:
                    self._leave_out(f"{section}: there is nothing to measure on this machine")
        except KeyboardInterrupt:
            self.stopped = True
            self.left_out.append("what comes after: the run was stopped by hand")
        self._save(report)
        return report

    def section(self, section: str, ceilings: dict[str, float]) -> Iterator[Record]:
        """Yields the records of a section, one for every group that could be measured."""
        _, groups = SECTIONS[section]
        for group in groups(self.networks, quick=self.options.quick):
            where = f"{section}, {group.name}"
            self.say(where)
            release()  # memory of the group before
            free = available() if self.device.type == "cpu" else None
            if free is not None and free < group.needs * GIB:
                needed = f"needs {group.needs:.0f} GiB, {free / GIB:.1f} GiB are free"
                self._leave_out(f"{where}: {needed}")
                continue
            try:
                record = measure(
                    group,
                    device=self.device,
                    limit=self.limit,
                    ceilings=ceilings,
                    peak=partial(self._peak, where, group),
                )
            except (RuntimeError, MemoryError) as error:  # one that fails costs no other
                self.failed = True
                self._leave_out(f"{where}: failed: {' '.join(str(error).split())[:200]}")
                continue
            for ratio in record["ratios"]:
                self.say(f"    {ratio['title']}: {ratio_text(ratio)}")
            yield record
        self.networks.clear()

    def say(self, text: str) -> None:
        """Prints a line of progress, with the seconds since the start."""
        print(f"{time.perf_counter() - self.begun:5.0f} s  {text}", file=sys.stderr, flush=True)

    def _peak(self, where: str, group: Group, variant: str) -> Peak | None:
        """Measures peak memory, on a CPU in a process of its own."""
        prepare = group.variants[variant].prepare
        try:
            if self.device.type == "cuda":
                return peak_of(prepare(), self.device)
            return Worker(prepare, memory_kept=True).peak(self.device)
        except (RuntimeError, MemoryError) as error:
            said = " ".join(str(error).split())[:200]
            self._leave_out(f"peak memory of {where}, {variant}: {said}")
            return None

    def _leave_out(self, text: str) -> None:
        self.say(f"left out: {text}")
        self.left_out.append(text)

    def _save(self, report: dict[str, Any]) -> None:
        if self.options.json is not None:
            write(report, self.options.json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 if something failed, 130 if stopped by hand."""
    options = _parser().parse_args(arguments)
    return run_command(NAME, lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    report = (run := Run(options)).report()
    print(markdown(report))
    return 130 if run.stopped else int(run.failed)


def _sections(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SECTIONS:
            known = ", ".join(SECTIONS)
            raise argparse.ArgumentTypeError(f"there is no section {name!r}; there are {known}")
    return list(dict.fromkeys(names))


def _positive(text: str, kind: Callable[[str], float]) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number above 0")
    return value


def _json_file(text: str) -> Path:
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, expected a file to write")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, SECTIONS))
    sections = "\n".join(f"  {name:{width}}  {what}" for name, (what, _) in SECTIONS.items())
    parser = make_parser(
        NAME,
        description="Measures the library on this machine: seconds, pictures a second, peak "
        "memory, the share of what the machine can do at all, and ratios to a plain textbook "
        "implementation, all in one run. Progress goes to stderr, a Markdown table to stdout.",
        examples=EXAMPLES.format(sections=sections),
    )
    add = parser.add_argument
    only = "these sections alone, in this order (default: all but training-1024)"
    add("--only", type=_sections, default=DEFAULT, metavar="SECTION,...", help=only)
    add("--quick", action="store_true", help="small networks, a minute and a half in all")
    add("--json", type=_json_file, metavar="FILE", help="write every figure there")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: a GPU if there is one)")
    add(
        "--threads",
        type=partial(_positive, kind=int),
        metavar="N",
        help="of the CPU (default: what torch takes)",
    )
    add("--compile", action="store_true", help="torch.compile as well")
    memory = (
        "freed memory stays with the process, as in the other commands, or goes back to the "
        "system, as in a program that imports the library (default: kept)"
    )
    add("--memory", choices=["kept", "returned"], default="kept", help=memory)
    limit = "after which a group begins no further round (default: "
    limit += f"{LIMIT:.0f}, with --quick {QUICK_LIMIT:g})"
    add("--limit", type=partial(_positive, kind=float), metavar="SECONDS", help=limit)
    return parser


if __name__ == "__main__":
    sys.exit(main())
