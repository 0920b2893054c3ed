"""Programs that are interrupted at once, print into closed pipes, or are started by torchrun."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from toy_runs import ENVIRONMENT, ROOT, command, run_python

from training.commandline import rewritten

CONFIGS = ROOT / "configs"


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="latin-1",
    )


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.5])
def test_an_interruption_while_torch_is_imported(seconds: float, tmp_path: Path) -> None:
    process = start(*command(tmp_path, "+stages.fit.task.delay=1"))
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert len(errors.splitlines()) <= 1 and "Traceback" not in errors


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    for arguments in ([str(ROOT / "train.py"), "--help"], command(tmp_path)):
        process = start(*arguments, PYTHONUNBUFFERED="")
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) in (0, 128 + signal.SIGPIPE)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_of_few_characters(encoding: str, tmp_path: Path) -> None:
    process = start(
        *command(tmp_path, "run=ü→/x"), PYTHONIOENCODING=encoding, PYTHONUTF8="0", LC_ALL="C.UTF-8"
    )
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert errors.startswith("train.py: run is ") and len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["+experiment=nonsense"], "train.py: there is no experiment 'nonsense'"),
        (["paths.runs={folder}/file"], "train.py: {folder}/file/toy: Not a directory"),
    ],
)
def test_a_mistake_under_torchrun_is_the_last_line(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given = [argument.format(folder=tmp_path) for argument in arguments]
    done = run_python(*launcher, *command(tmp_path / "runs", *given))
    assert done.returncode == 1  # the launcher's own
    lines = [line for line in done.stderr.splitlines() if line.strip("=")]
    wanted = said.format(folder=tmp_path)
    assert lines[-1].strip().startswith(f"traceback : {wanted}")
    assert sum(line.startswith(wanted) for line in lines) == 1
    assert done.stderr.count("exitcode  :") <= 2  # the launcher may see both ranks end
    assert len(lines) <= 45


HOME = os.path.expanduser("~")  # noqa: PTH111


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("paths.runs=~/x", f"{HOME}/x"),
        ("paths.cache=~", HOME),
        ("data.root=~/Bilder für Test", f"{HOME}/Bilder für Test"),
        ("data.root=~nobody-of-this-name/x", "~nobody-of-this-name/x"),
        ("+data.cache=1e3", "1e3"),
        ("data.root=v=1", "v=1"),
        ("data.root=it's (1)", "it's (1)"),
        ("+data.split=2024_11_28", "2024_11_28"),
        ("run=~/x", "~/x"),
    ],
)
def test_paths_and_names_stay_as_typed(argument: str, value: str) -> None:
    given = rewritten(["data=folder", argument], configs=CONFIGS)
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        config = compose("train", overrides=given)
    key = argument.partition("=")[0].lstrip("+")
    assert OmegaConf.select(config, key) == value


def test_a_folder_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    folder = str(tmp_path / "pictures")
    assert rewritten(["data=~/pictures"], configs=CONFIGS) == ["data=folder", f"data.root={folder}"]
