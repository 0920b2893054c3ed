"""How figures are made of measurements; nothing here expects anything of a clock."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from benchmarks import networks, synthesis
from benchmarks.case import Case, Ratio, Variant, measured
from benchmarks.hardware import described
from benchmarks.memory import MIB, ChildError, Peak, line, peak_in_child, peak_of
from benchmarks.networks import Networks
from benchmarks.report import SCHEMA, markdown, write
from benchmarks.served import Served
from benchmarks.timing import Call, interleaved
from clcae.metrics.cost import count_operations
from clcae.stylegan2 import Generator

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


def unserved(variant: str) -> Call:
    raise AssertionError(variant)


def test_calls_take_turns_after_a_round_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.timing.SHORTEST", 0.0)  # one call a round
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    rounds = interleaved(calls, device=CPU, limit=60.0, most_rounds=3)
    assert order == ["a", "b"] * 4
    assert {name: len(seconds) for name, seconds in rounds.items()} == {"a": 3, "b": 3}
    assert all(second > 0.0 for seconds in rounds.values() for second in seconds)


@pytest.mark.parametrize(
    ("seconds", "rounds"), [(1.0, 9), (4.0, 5), (15.0, 2), (119.0, 2), (121.0, 1)]
)
def test_rounds_by_what_they_take(
    seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def call() -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("benchmarks.timing.time.perf_counter", lambda: now)
    made = interleaved({"a": call}, device=CPU, limit=20.0)
    assert made == {"a": [seconds] * rounds}


def test_short_calls_are_repeated_between_two_looks_at_the_clock() -> None:
    order: list[str] = []
    interleaved({"a": lambda: order.append("a")}, device=CPU, limit=60.0, most_rounds=2)
    assert len(order) > 20


RATIOS = [
    Ratio(["slow"], ["fast"]),
    Ratio(["slow", "fast"], ["fast"]),
    Ratio(["slow"], ["fast"], "seconds an image"),
    Ratio(["slow"], ["fast"], "seconds an operation"),
    Ratio(["slow"], ["fast"], "peak memory"),
    Ratio(["slow"], ["fast"], "peak memory in all"),
    Ratio(["slow"], ["unmeasured"], "peak memory"),
]


def test_ratios_and_shares_follow_from_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = {"fast": [1.0, 2.0, 2.0], "slow": [4.0, 6.0, 10.0], "unmeasured": [1.0, 1.0, 1.0]}
    monkeypatch.setattr("benchmarks.case.interleaved", lambda calls, **_: rounds)
    case = Case(
        name="case",
        variants={
            "fast": Variant(prepare=lambda: print, images=1, operations=8e9),
            "slow": Variant(prepare=lambda: print, images=4, operations=2e9, moved=3e9),
            "unmeasured": Variant(prepare=lambda: print),
        },
        ratios=RATIOS,
        peaks=["fast", "slow", "unmeasured"],
    )
    peaks = {"fast": Peak(MIB, 3 * MIB), "slow": Peak(5 * MIB, 9 * MIB)}
    record = measured(
        case,
        device=CPU,
        limit=1.0,
        ceilings={"convolution": 8.0, "product": 1.0, "copy": 2.0},
        peak=peaks.get,
        serve=unserved,
    )
    values = [(ratio["value"], ratio["low"], ratio["high"]) for ratio in record["ratios"]]
    times = [(3.0, 3.0, 5.0), (4.0, 4.0, 6.0), (0.75, 0.75, 1.25), (12.0, 12.0, 20.0)]
    assert values == [*times, (5.0, 5.0, 5.0), (3.0, 3.0, 3.0)]
    assert record["ratios"][1]["title"] == "slow + fast / fast, seconds"
    fast, slow = record["variants"]["fast"], record["variants"]["slow"]
    assert fast["seconds"] == {"median": 2.0, "low": 1.0, "high": 2.0}
    assert fast["gflop_per_second"] == 4.0 and fast["share_of_convolution"] == 0.5
    assert slow["gb_per_second"] == 0.5 and slow["share_of_copy"] == 0.25
    assert slow["images_per_second"] == pytest.approx(4 / 6)
    assert slow["peak_mib"] == {"above": 5.0, "whole": 9.0}
    assert "peak_mib" not in record["variants"]["unmeasured"]


def test_a_peak_is_what_a_call_needs() -> None:
    """Not what was there before, nor what is over already."""
    program = (
        "import torch; from benchmarks.memory import line, peak_of\n"
        f"held = torch.ones(100, {MIB // 4}); torch.ones(900, {MIB // 4})\n"
        f"call = lambda: torch.ones(400, {MIB // 4}).sum()\n"
        "print(line(peak_of(call, torch.device('cpu'))))"
    )
    peak = peak_in_child([sys.executable, "-c", program])
    assert peak.above / MIB == pytest.approx(400, abs=25)
    assert 500 * MIB < peak.whole < 1350 * MIB  # of which the interpreter holds some hundred


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(ChildError, match="ended with 3: no way"):
        peak_in_child([sys.executable, "-c", "import sys; sys.stderr.write('no way'); sys.exit(3)"])
    with pytest.raises(ChildError, match="ended with 0: no word"):
        peak_in_child([sys.executable, "-c", ""])


def serving(call: str) -> list[str]:
    """A program that makes a call whenever it is asked."""
    script = f"import sys; from benchmarks.served import serve; serve(lambda: {call}, sys.stdin)"
    return [sys.executable, "-c", script]


def test_a_process_makes_its_call_whenever_it_is_asked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    call = Served(serving(f"open({str(log)!r}, 'a').write('x')"))
    assert not log.exists()
    call()
    assert log.read_text() == "x"
    call()
    assert log.read_text() == "xx"
    process = call._process
    del call
    assert process.returncode is not None


def test_a_variant_that_is_served_is_not_built_here() -> None:
    asked: list[str] = []

    def unbuilt() -> Call:
        raise AssertionError

    ways = {"here": Variant(prepare=lambda: int), "apart": Variant(prepare=unbuilt, served="here")}

    def serve(variant: str) -> Call:
        asked.append(variant)
        return int

    record = measured(
        Case(name="case", variants=ways, ratios=[Ratio(["apart"], ["here"])]),
        device=CPU,
        limit=0.01,
        ceilings={},
        peak=lambda name: None,
        serve=serve,
    )
    assert asked == ["here"] and record["ratios"][0]["value"] > 0.0


def test_a_served_process_that_ends_says_why() -> None:
    with pytest.raises(ChildError, match="ended with 1: no textbook"):
        Served([sys.executable, "-c", "raise SystemExit('no textbook')"])
    call = Served(serving("1 / 0"))
    with pytest.raises(ChildError, match=r"ended with .*: ZeroDivisionError: division by zero"):
        call()


def test_a_line_is_read_as_it_was_written() -> None:
    peak = peak_of(lambda: torch.ones(MIB), CPU)
    assert peak_in_child([sys.executable, "-c", f"print('{line(peak)}')"]) == peak


@pytest.mark.parametrize("resolution", [64, 256])
def test_operations_are_those_of_the_convolutions(resolution: int) -> None:
    """Against the counter of torch, which also counts filters and styles: a few percent."""
    generator = Generator(resolution=resolution).to("meta")
    codes = torch.zeros(1, generator.num_codes, 512, device="meta")
    counted = count_operations(generator.synthesize, codes).total
    assert 0.93 < synthesis.operations(generator.channels) / counted < 1.0


def test_a_picture_of_1024_takes_150_gflop() -> None:
    channels = [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert synthesis.operations(channels) / 1e9 == pytest.approx(149, abs=1)


def test_the_drawn_method_is_the_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(networks, "CLCAE", lambda **settings: given.update(settings) or Fake())
    built = Networks(device=CPU, textbook=None)
    monkeypatch.setattr(built, "generator", lambda resolution: None)
    built.method(1024)
    configured = OmegaConf.load(ROOT / "configs" / "method" / "clcae_ffhq.yaml")
    assert {key: configured[key] for key in given if key != "generator"} == {
        key: value for key, value in given.items() if key != "generator"
    }
    others = {"width": 512, "num_levels": 3, "feature_hidden": 512, "feature_attention": None}
    others |= {"subtract_average": True, "edit_rule": "refined"}
    assert {key: configured[key] for key in others} == others  # the defaults of the class


class Fake(torch.nn.Module):
    """Takes the place of a network of a gigabyte."""


def test_networks_are_built_once_and_forgotten() -> None:
    built = Networks(device=CPU, textbook=None)
    generator = built.generator(64)
    assert built.generator(64) is generator and built.codes(64, 3).shape == (3, 10, 128)
    built.clear()
    assert built.generator(64) is not generator


def report_of(machine: dict[str, object], **left: object) -> dict[str, object]:
    case = Case(
        name="1 px",
        variants={"a": Variant(prepare=lambda: lambda: sum(range(1000)), images=2)},
        ratios=[Ratio(["a"], ["a"])],
    )
    ceilings = {"convolution": 100.0, "product": 90.0, "copy": 12.5}
    record = measured(
        case, device=CPU, limit=0.01, ceilings=ceilings, peak=lambda name: None, serve=unserved
    )
    report = {"schema": SCHEMA, "date": "2026-11-21", "machine": machine, "ceilings": ceilings}
    settings = {"memory": "returned"}
    sections = {"generator": [record]}
    return report | {"settings": settings, "sections": sections, "left_out": [], **left}


def test_a_report_names_the_machine_and_begins_with_ratios(tmp_path: Path) -> None:
    report = report_of(described(CPU), left_out=["ops: no time"])
    text = markdown(report)
    first, ratios, figures, missing, listed = text.split("\n\n")
    assert torch.__version__ in first and "100 GFLOP/s" in first and "12.5 GB/s" in first
    assert "| generator | 1 px | a / a, seconds | **1.00** |" in ratios
    assert figures.splitlines()[2].startswith("| generator | 1 px | a |")
    widths = {line.count("|") for line in figures.splitlines()}
    assert len(widths) == 1
    assert (missing, listed) == ("Left out:", "- ops: no time")
    path = tmp_path / "new" / "speed.json"
    write(report, path)
    assert json.loads(path.read_text()) == report
    assert list(path.parent.iterdir()) == [path]


def test_importing_the_cases_starts_no_compiler() -> None:
    program = "import sys, benchmarks.synthesis; print('torch._inductor' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "False", ran.stderr
