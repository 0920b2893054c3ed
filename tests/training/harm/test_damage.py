"""Damaged run folders: the run ends as an undamaged one, or in one line that says what is wrong."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from toy_runs import assert_same_run, checkpoint, configure, identical, metrics

from training.errors import UserError, explain
from training.run import train
from training.state.checkpoint import DamagedError, load_checkpoint, save_checkpoint
from training.state.run_state import RunState, StageState, differing_keys, read_config

STAGE = Path("toy/checkpoints/fit")
BOMB = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs, one of which was not disturbed."""
    runs = tmp_path_factory.mktemp("whole")
    train(configure(runs, "trainer.keep_last=100"))
    return runs


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """The same run as it was after step 21."""
    runs = tmp_path / "stopped"
    shutil.copytree(whole, runs)
    stage = runs / STAGE
    for name, step in (("last.pt", 21), ("previous.pt", 18)):
        (stage / f"step_{step:08d}.pt").replace(stage / name)
    for file in (*stage.glob("step_*.pt"), stage / "finished.json"):
        file.unlink()
    return runs


def altered(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes what a checkpoint holds; its digest is right again."""

    def alter(path: Path) -> None:
        content = load_checkpoint(path)
        change(content)
        save_checkpoint(path, content)

    return alter


def flip(path: Path, position: int) -> None:
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position // 8] ^= 1 << position % 8
    path.write_bytes(data)


def place_of_a_weight(path: Path) -> int:
    """Finds the bytes of an averaged weight in a checkpoint."""
    weight = next(iter(load_checkpoint(path)["ema"]["network"].values()))
    return path.read_bytes().index(weight.numpy().tobytes())


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "cut at its end": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "pickle": lambda path: path.write_bytes(b"\x80\x02cposix\nsystem\n."),
    "list": lambda path: torch.save([1, 2], path),
    "tensor": lambda path: torch.save(torch.ones(2), path),
    "foreign": lambda path: torch.save({"g_ema": {}, "args": [1]}, path),
    "a bit of a weight": lambda path: flip(path, place_of_a_weight(path) * 8 + 13),
    "without means": altered(lambda content: content.pop("means")),
    "without modules": altered(lambda content: content.pop("modules")),
    "beyond the end": altered(lambda content: content.update(step=41)),
    "before the beginning": altered(lambda content: content.update(step=-1)),
    "no step": altered(lambda content: content.update(step="21")),
    "no best": altered(lambda content: content.update(best=[1])),
    "modules of another kind": altered(lambda content: content.update(modules={"network": [1]})),
    "optimizers of another kind": altered(lambda c: c.update(optimizers={"network": 3})),
    "means of another kind": altered(lambda content: content.update(means=3)),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_previous_checkpoint_serves_where_the_last_is_damaged(
    kind: str, whole: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = stopped / STAGE / "last.pt"
    assert not last.samefile(stopped / STAGE / "previous.pt")
    DAMAGE[kind](last)
    train(configure(stopped))
    said = capsys.readouterr().out
    assert f"fit: continuing after step 18/40, from {stopped / STAGE / 'previous.pt'}" in said
    assert kind == "missing" or f"fit: cannot read the checkpoint {last}: it is damaged" in said
    assert "weights_only" not in said
    assert_same_run(stopped / "toy", whole / "toy")


@pytest.mark.parametrize("kind", ["cut", "list", "beyond the end"])
def test_without_a_good_checkpoint_it_is_one_line(kind: str, stopped: Path) -> None:
    for name in ("last.pt", "previous.pt"):
        DAMAGE[kind](stopped / STAGE / name)
    before = (stopped / STAGE / "last.pt").read_bytes()
    with pytest.raises(UserError, match=r"last\.pt: it is damaged.*there is no other: delete") as e:
        train(configure(stopped))
    assert len(str(e.value).splitlines()) == 1 and "weights_only" not in str(e.value)
    assert (stopped / STAGE / "last.pt").read_bytes() == before


def test_a_damaged_checkpoint_never_becomes_the_previous_one(stopped: Path) -> None:
    files = RunState(folder=stopped / "toy").stage("fit", keep_last=1)
    DAMAGE["cut"](files.last)
    files.last_is_good = False
    files.save_last({"step": 22})
    assert load_checkpoint(files.previous)["step"] == 18
    files.save_last({"step": 23})
    assert load_checkpoint(files.previous)["step"] == 22


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", "[" * 100_000, "1" * 5000, "\0", '{"weights": "last.pt"}'),
        *('{"weights": "../x", "report": {}}', '{"weights": "last.pt", "report": {}, "digest": 0}'),
    ],
)
def test_a_broken_mark_of_completion(
    text: str, whole: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stopped / STAGE / "finished.json").write_text(text)
    train(configure(stopped))
    assert "finished.json is damaged" in capsys.readouterr().out
    assert_same_run(stopped / "toy", whole / "toy")


def test_a_finished_run_whose_weights_are_damaged(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "runs")
    DAMAGE["a bit of a weight"](tmp_path / "runs" / STAGE / "last.pt")
    train(configure(tmp_path / "runs"))
    assert "the stage is finished again" in capsys.readouterr().out
    assert_same_run(tmp_path / "runs/toy", whole / "toy")


def test_damaged_weights_of_the_best_validation(tmp_path: Path) -> None:
    best = "trainer.finish_with=best"
    train(configure(tmp_path, best))
    DAMAGE["a bit of a weight"](tmp_path / STAGE / "best.pt")
    with pytest.raises(UserError, match=r"best\.pt: it is damaged.*delete"):
        train(configure(tmp_path, best))


@pytest.mark.parametrize(
    "text",
    [BOMB, "[1, 2]", "hello: [", "\0", "{" * 5000, "x" * 300_000, "&a [*a]", "? [a]\n: 1", "3"],
)
def test_a_config_that_no_training_wrote(text: str, stopped: Path) -> None:
    (stopped / "toy/config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"toy.*(damaged|differs)"):
        train(configure(stopped))


def test_other_lines_in_the_log_stay(whole: Path, stopped: Path) -> None:
    log = stopped / "toy/metrics.jsonl"
    others = ["[]", "3", '{"a": 1}', '{"stage": [], "step": 1}', "null"]
    broken = ['{"stage": "fit", "step": "x"}', "1" * 5000, "[" * 100_000, "{"]
    log.write_text(log.read_text() + "\n".join([*others, *broken]))
    log.write_bytes(log.read_bytes() + b"\xff\n")
    train(configure(stopped))
    kept = log.read_text().splitlines()
    assert [line for line in kept if line in others] == others
    log.write_text("".join(f"{line}\n" for line in kept if line not in others))
    assert metrics(stopped / "toy") == metrics(whole / "toy")


FOLDERS = ["last.pt", "previous.pt", "finished.json"]


@pytest.mark.parametrize("name", [*FOLDERS, "../../metrics.jsonl", "../../config.yaml"])
def test_a_folder_in_the_place_of_a_file(name: str, stopped: Path) -> None:
    path = stopped / STAGE / name
    path.unlink(missing_ok=True)
    (path / "inner").mkdir(parents=True)
    with pytest.raises((UserError, OSError, ValueError)) as caught:
        train(configure(stopped))
    line = explain(caught.value, name="train.py", configs=Path(), primary="", arguments=[])
    assert line is not None and Path(name).name in line[0]
    assert len(line[0].splitlines()) == 1


def flips(path: Path, count: int) -> list[int]:
    return random.Random(0).sample(range(path.stat().st_size * 8), count)


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_flipped_bits_in_checkpoints(name: str, stopped: Path) -> None:
    path = stopped / STAGE / name
    good, noticed = load_checkpoint(path), 0
    for position in flips(path, 400):
        flip(path, position)
        try:
            assert identical(load_checkpoint(path), good), position
        except DamagedError:
            noticed += 1
        flip(path, position)
    assert noticed > 100  # the others are in padding and in names within the archive


def test_flipped_bits_in_the_mark_of_completion(whole: Path, stopped: Path) -> None:
    path = stopped / STAGE / "finished.json"
    shutil.copy(whole / STAGE / "finished.json", path)
    files = StageState(run_folder=stopped / "toy", name="fit", keep_last=1)
    good, noticed = files.finished(), 0
    for position in flips(path, 400):
        flip(path, position)
        try:
            assert files.finished() == good, position
        except DamagedError:
            noticed += 1
        flip(path, position)
    assert noticed > 350


def test_flipped_bits_in_the_configuration(stopped: Path) -> None:
    path, present = stopped / "toy/config.yaml", configure(stopped)
    plain: Any = OmegaConf.to_container(present, resolve=True)
    noticed = 0
    for position in flips(path, 300):
        flip(path, position)
        try:
            former = read_config(path)
            same = all(former.get(key) == plain[key] for key in ("seed", "network", "optim"))
            assert same or differing_keys(former, present), position
            noticed += not same
        except UserError:
            noticed += 1
        flip(path, position)
    assert noticed > 60


def assert_ends_alike(runs: Path, whole: Path, said: pytest.CaptureFixture[str]) -> None:
    """A run ends as the whole one, or in one line, or says that best.pt is damaged."""
    try:
        train(configure(runs))
    except UserError as error:
        line: str | None = str(error)
    else:
        line = None
    if line is not None:
        assert len(line.splitlines()) == 1
        return
    if "best.pt: it is damaged" in said.readouterr().out:
        shutil.copy(whole / STAGE / "best.pt", runs / STAGE)
    assert_same_run(runs / "toy", whole / "toy")


@pytest.mark.parametrize("name", ["last.pt", "best.pt", "../../config.yaml"])
@pytest.mark.parametrize("count", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_no_flipped_bit_changes_a_result(
    name: str,
    count: int,
    whole: Path,
    stopped: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, position in enumerate(flips(stopped / STAGE / name, count)):
        runs = tmp_path / str(number)
        shutil.copytree(stopped, runs)
        flip(runs / STAGE / name, position)
        assert_ends_alike(runs, whole, capsys)


def test_a_former_checkpoint_has_no_digest(stopped: Path) -> None:
    path = stopped / STAGE / "last.pt"
    content = load_checkpoint(path)
    torch.save(content, path)
    assert identical(load_checkpoint(path), content)
    torch.save({**content, "digesu": "0"}, path)  # a flipped bit in the name of the digest
    with pytest.raises(DamagedError, match="unknown entries, such as 'digesu'"):
        load_checkpoint(path)
    assert checkpoint(stopped / "toy", "previous")["step"] == 18
