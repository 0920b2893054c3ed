"""Speed and memory of the library on this machine, as ratios in one run; see --help."""

import argparse
import datetime
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.case import Case, Record, measured
from benchmarks.hardware import ceilings, described
from benchmarks.imports import import_cases
from benchmarks.inversion import edit_cases, encoder_cases, inversion_cases
from benchmarks.memory import ChildError, Peak, available, line, peak_in_child, peak_of, release
from benchmarks.networks import Networks
from benchmarks.operators import operator_cases
from benchmarks.report import SCHEMA, markdown, ratio_text, write
from benchmarks.served import Served, serve
from benchmarks.synthesis import generator_cases, scaling_cases
from benchmarks.timing import Call
from benchmarks.training import large_training_cases, training_cases
from clcae.device import pick_device
from clcae.ops.memory import keep_freed_memory
from clcae.stylegan2.compilation import compiled

NAME = "benchmark.py"
ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    "import": "the library against torch alone",
    "generator": "codes to pictures against the textbook's synthesis, at 256, 512 and 1024 px",
    "encoder": "images to w, W+ and F",
    "inversion": "image to picture with F, against one encoder pass and one synthesis",
    "edit": "changed codes to picture, against one synthesis",
    "training": "one step of each stage against the same step written plainly",
    "training-1024": "the same with a 1024 generator; only when it is named: minutes, and 20 GiB",
    "ops": "each operator against its reference, its plain form, and the speed of a copy",
    "scaling": "more pictures at once, more pixels, more threads",
}
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

What is compared takes turns (a, b, a, b, ...), so that whatever else the machine does disturbs
both; every figure is a median, with the lowest and highest beside it. One round goes first and does
not count, at least two do; but where the first takes six times --limit it is the only one. Ceilings
are what a plain 3x3 convolution, a matrix product and a copy reach on this machine; "3x3
convolution / clcae, seconds an operation" is the share of the first, taking turns with it. The
"plain program" is the textbook in a process of its own, without the setting of memory that the
commands make for themselves. Peak memory on a CPU is that of a process of its own beyond what it
held with everything built. The weights are random and of official size: no file is needed.
"""


class Run:
    """One run: what was asked for, and what was found so far."""

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
        self.plain_step: ModuleType | None = None
        self.networks = Networks(
            device=self.device,
            textbook=self._textbook(),
            memory_kept=self.memory == "kept" and self.device.type == "cpu",
        )
        if options.compile:
            self.networks.compiled = compiled

    def report(self) -> dict[str, Any]:
        """Measures; what is finished is written as soon as it is there."""
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
            "machine": described(self.device),
            "ceilings": ceilings(self.device, small=options.quick),
            "sections": {},
            "left_out": self.left_out,
        }
        try:
            for section in options.only:
                records = report["sections"].setdefault(section, [])
                for record in self.section(section, report["ceilings"]):
                    records.append(record)
                    self._save(report)
        except KeyboardInterrupt:
            self.stopped = True
            self.left_out.append("what comes after: the run was stopped by hand")
        self._save(report)
        return report

    def section(self, section: str, machine: dict[str, float]) -> Iterator[Record]:
        """The records of a section; what cannot be measured is noted instead."""
        for case in self.cases(section):
            where = f"{section}, {case.name}"
            self.say(where)
            release()  # what the case before has held
            free = available() if self.device.type == "cpu" else None
            if free is not None and free < case.needs * GIB:
                self._leave_out(
                    f"{where}: needs {case.needs:.0f} GiB, {free / GIB:.1f} GiB are free"
                )
                continue
            try:
                record = measured(
                    case,
                    device=self.device,
                    limit=self.limit,
                    ceilings=machine,
                    peak=partial(self._peak, section, case),
                    serve=partial(self._served, section, case),
                )
            except (RuntimeError, MemoryError) as error:  # one that fails costs no other
                self.failed = True
                self._leave_out(f"{where}: failed: {' '.join(str(error).split())[:200]}")
                continue
            for ratio in record["ratios"]:
                self.say(f"    {ratio['title']}: {ratio_text(ratio)}")
            yield record
        self.networks.clear()

    def cases(self, section: str) -> Iterator[Case]:
        """The cases of a section, one after the other."""
        makers: dict[str, Callable[..., Iterator[Case]]] = {
            "import": import_cases,
            "generator": generator_cases,
            "encoder": encoder_cases,
            "inversion": inversion_cases,
            "edit": edit_cases,
            "training": partial(training_cases, plain_step=self.plain_step),
            "training-1024": partial(large_training_cases, plain_step=self.plain_step),
            "ops": operator_cases,
            "scaling": scaling_cases,
        }
        return makers[section](self.networks, quick=self.options.quick)

    def call(self, section: str, case_name: str, variant: str) -> Call:
        """One variant, in a process that does nothing else."""
        case = next(case for case in self.cases(section) if case.name == case_name)
        return case.variants[variant].prepare()

    def say(self, text: str) -> None:
        """A line of progress, with the seconds since the start."""
        print(f"{time.perf_counter() - self.begun:5.0f} s  {text}", file=sys.stderr, flush=True)

    def _peak(self, section: str, case: Case, variant: str) -> Peak | None:
        """On a CPU by a process of its own."""
        if self.device.type == "cuda":
            return peak_of(case.variants[variant].prepare(), self.device)
        try:
            return peak_in_child(self._child("--peak", section, case.name, variant))
        except ChildError as error:
            self._leave_out(f"peak memory of {section}, {case.name}, {variant}: {error}")
            return None

    def _served(self, section: str, case: Case, variant: str) -> Call:
        return Served(self._child("--memory", "returned", "--serve", section, case.name, variant))

    def _child(self, *arguments: str) -> list[str]:
        """This command again, for one variant."""
        command = [sys.executable, str(Path(__file__).resolve()), "--device", str(self.device)]
        command += ["--threads", str(torch.get_num_threads())] + ["--quick"] * self.options.quick
        return [*command, *arguments]

    def _textbook(self) -> ModuleType | None:
        self.plain_step = importlib.import_module("benchmarks.yardstick.training_step")
        return importlib.import_module("benchmarks.yardstick.synthesis")

    def _leave_out(self, text: str) -> None:
        self.say(f"left out: {text}")
        self.left_out.append(text)

    def _save(self, report: dict[str, Any]) -> None:
        if self.options.json is not None:
            write(report, self.options.json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, 1: something failed, 130: it was stopped. SystemExit 2: usage."""
    options = _parser().parse_args(arguments)
    try:
        run = Run(options)
        if options.peak is not None:
            print(line(peak_of(run.call(*options.peak), run.device)))
            return 0
        if options.serve is not None:
            serve(run.call(*options.serve), sys.stdin)
            return 0
        report = run.report()
    except (ValueError, OSError) as error:
        print(f"{NAME}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{NAME}: stopped", file=sys.stderr)
        return 130
    print(markdown(report))
    return 130 if run.stopped else int(run.failed)


def _sections(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(
                f"there is no section {name!r}; there are {', '.join(SECTIONS)}"
            )
    return list(dict.fromkeys(names))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 86400.0:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number of seconds above 0")
    return value


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number from 1")
    return int(text)


def _json_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, expected a file to write")
    return path


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, SECTIONS))
    sections = "\n".join(f"  {name:{width}}  {what}" for name, what in SECTIONS.items())
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Measures the library on this machine: seconds, pictures a second, peak "
        "memory, the share of what the machine can do at all, and ratios to a plain textbook "
        "implementation, all in one run. Progress goes to stderr, a Markdown table to stdout.",
        epilog=EXAMPLES.format(sections=sections),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        type=_sections,
        default=DEFAULT,
        metavar="SECTION,...",
        help="these sections alone, in this order (default: all but training-1024)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small networks, a minute and a half in all"
    )
    parser.add_argument("--json", type=_json_file, metavar="FILE", help="write every figure there")
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:1 (default: a GPU where there is one)",
    )
    parser.add_argument(
        "--threads", type=_threads, metavar="N", help="of the CPU (default: what torch takes)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument(
        "--memory",
        choices=["kept", "returned"],
        default="kept",
        help="freed memory stays with the process, as in the other commands, or goes back to the "
        "system, as in a program that imports the library (default: kept)",
    )
    parser.add_argument(
        "--limit",
        type=_seconds,
        metavar="SECONDS",
        help=f"after which a case begins no further round (default: {LIMIT:.0f}, with --quick "
        f"{QUICK_LIMIT:g})",
    )
    for hidden in ("--peak", "--serve"):  # section, case, variant
        parser.add_argument(hidden, nargs=3, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
