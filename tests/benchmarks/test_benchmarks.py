"""How figures are made of measurements; nothing here expects anything of a clock."""

import gc
import json
import os
import pickle
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from benchmarks import generator, neighbours, network_cache
from benchmarks.ceilings import describe_machine
from benchmarks.measurement import Group, Ratio, Variant, measure
from benchmarks.memory import MIB, Peak
from benchmarks.network_cache import NetworkCache
from benchmarks.report import SCHEMA, markdown, write
from benchmarks.timing import Call, interleaved
from benchmarks.workers import Worker
from clcae.metrics.cost import count_operations
from clcae.stylegan2 import Generator

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


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
    monkeypatch.setattr("benchmarks.measurement.interleaved", lambda calls, **_: rounds)
    group = Group(
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
    record = measure(
        group,
        device=CPU,
        limit=1.0,
        ceilings={"convolution": 8.0, "product": 1.0, "copy": 2.0},
        peak=peaks.get,
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


def calls_held() -> Call:
    """Holds 100 MiB, has used 900, and needs 400."""
    held = torch.ones(100, MIB // 4)
    torch.ones(900, MIB // 4)
    return lambda: (held, torch.ones(400, MIB // 4).sum())


def test_a_peak_is_what_a_call_needs() -> None:
    """Not what was there before, nor what is over already."""
    peak = Worker(calls_held, memory_kept=True).peak(CPU)
    assert peak.above / MIB == pytest.approx(400, abs=25)
    assert 500 * MIB < peak.whole < 1350 * MIB  # of which the interpreter holds some hundred


def writing(path: Path) -> Call:
    return lambda: path.open("a").write(f"{os.getpid()}\n")


def test_a_worker_runs_its_call_whenever_it_is_asked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = Worker(partial(writing, log), memory_kept=False)
    assert not log.exists()
    worker()
    worker()
    first, second = log.read_text().splitlines()
    assert first == second != str(os.getpid())
    del worker
    gc.collect()
    end = time.monotonic() + 20
    while Path(f"/proc/{first}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{first}").exists()


def failing() -> Call:
    raise RuntimeError("no textbook")


def dying() -> Call:
    return lambda: os._exit(3)


def test_a_worker_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="no textbook"):
        Worker(failing, memory_kept=False)
    with pytest.raises(RuntimeError, match="terminated abruptly"):
        Worker(dying, memory_kept=False)()


def test_a_variant_that_runs_apart_is_not_built_here(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ways = {
        "here": Variant(prepare=lambda: int),
        "apart": Variant(prepare=partial(writing, log), apart=True),
    }
    record = measure(
        Group(name="group", variants=ways, ratios=[Ratio(["apart"], ["here"])]),
        device=CPU,
        limit=0.01,
        ceilings={},
        peak=lambda name: None,
    )
    assert set(log.read_text().splitlines()) - {str(os.getpid())}
    assert record["ratios"][0]["value"] > 0.0


def test_what_is_sent_to_another_process_has_no_networks() -> None:
    networks = NetworkCache(device=CPU)
    group = next(generator.generator_groups(networks, quick=True))
    networks.generator(64)
    assert len(pickle.dumps(group.variants["textbook"].prepare)) < 10_000


@pytest.mark.parametrize("resolution", [64, 256])
def test_operations_are_those_of_the_convolutions(resolution: int) -> None:
    """Against the counter of torch, which also counts filters and styles: a few percent."""
    built = Generator(resolution=resolution).to("meta")
    codes = torch.zeros(1, built.num_codes, 512, device="meta")
    counted = count_operations(built.synthesize, codes)
    assert 0.93 < generator.operations(built.channels) / counted < 1.0


def test_a_picture_of_1024_takes_150_gflop() -> None:
    channels = [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert generator.operations(channels) / 1e9 == pytest.approx(149, abs=1)


def test_the_drawn_method_is_the_configured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(network_cache, "CLCAE", lambda **settings: given.update(settings) or Fake())
    built = NetworkCache(device=CPU)
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
    built = NetworkCache(device=CPU)
    first = built.generator(64)
    assert built.generator(64) is first and built.codes(64, 3).shape == (3, 10, 128)
    built.clear()
    assert built.generator(64) is not first


def report_of(machine: dict[str, object], **left: object) -> dict[str, object]:
    group = Group(
        name="1 px",
        variants={"a": Variant(prepare=lambda: lambda: sum(range(1000)), images=2)},
        ratios=[Ratio(["a"], ["a"])],
    )
    ceilings = {"convolution": 100.0, "product": 90.0, "copy": 12.5}
    record = measure(
        group,
        device=CPU,
        limit=0.01,
        ceilings=ceilings,
        peak=lambda name: None,
    )
    report = {"schema": SCHEMA, "date": "2026-11-21", "machine": machine, "ceilings": ceilings}
    settings = {"memory": "returned"}
    sections = {"generator": [record]}
    return report | {"settings": settings, "sections": sections, "left_out": [], **left}


def test_a_report_names_the_machine_and_begins_with_ratios(tmp_path: Path) -> None:
    report = report_of(describe_machine(CPU), left_out=["ops: no time"])
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


def test_steps_have_the_threads_that_their_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    for step in ("aligner_step", "encoder_step"):
        stub = lambda *_: lambda: used.append(torch.get_num_threads())  # noqa: E731
        monkeypatch.setattr(neighbours, step, stub)
    torch.set_num_threads(2)
    groups = list(neighbours.neighbour_groups(NetworkCache(device=CPU), quick=True))
    assert len(groups) == 1 + 2 * 2  # a synthesis; both stages, alone and beside
    for group in groups[1:]:
        assert list(group.variants) == ["one thread", "2 threads", "threads by load"]
        for variant in group.variants.values():
            variant.prepare()()
            assert torch.get_num_threads() == 2
    assert used == [1, 1, 2, 2, 2, 2] * 4  # no second has passed that the load is that of


def test_importing_the_cases_starts_no_compiler() -> None:
    program = "import sys, benchmarks.sections; print('torch._inductor' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "False", ran.stderr
