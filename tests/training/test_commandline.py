"""Command lines: what is typed reaches the configuration, and a mistake ends in one line."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from toy_runs import ROOT, command, run_python

from training.commandline import rewritten
from training.errors import UsageError, choices_of, explain
from training.optim import Ranger

CONFIGS = ROOT / "configs"
NAMES = [
    *("plain", "two words", "a=b", "a=b=c", "[2024] x,y", "{a: b}", "it's", 'say "x"', "tail\\"),
    *("2024_11_28", "1e3", "007", "nan", "true", "-1", "a\\'b", "x$y", "(1)", "ünï", "a#b", "~x"),
]


def composed(*arguments: str) -> DictConfig:
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=rewritten(arguments, configs=CONFIGS))


@pytest.mark.parametrize("name", NAMES)
def test_names_and_paths_stay_the_text_that_was_typed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    keys = ("run", "paths.runs", "paths.cache", "trainer.suffix")
    config = composed(*(f"{key}={name}" for key in keys), f"data={name}", f"method={name}")
    assert [OmegaConf.select(config, key) for key in keys] == [name] * 4
    assert (config.data._target_, config.data.root) == ("clcae.data.folder.ImageFolder", name)
    assert (config.method._target_, config.method.source) == ("clcae.load_method", name)


def test_every_group_that_takes_files(tmp_path: Path) -> None:
    file = str(tmp_path / "some 1e3.pkl")
    Path(file).touch()
    groups = {"generator": "source", "data": "root", "validation": "root", "test": "root"}
    config = composed(*(f"{group}={file}" for group in groups), "method=portraits/clcae")
    assert all(config[group][key] == file for group, key in groups.items())
    assert config.method.source == "portraits/clcae"
    assert config.method.generator == file
    assert composed(f"data@test={file}").test.root == file


def test_choices_and_what_is_hydra_s_own_are_left_alone(tmp_path: Path) -> None:
    given = [
        *("method=clcae_official", "data@test=portraits_plain", "trainer=debug", "optim.lr=1e-3"),
        *("run='a b'", "paths.cache=${paths.runs}", "+experiment=ffhq", "~report", "--cfg", "job"),
        *("data.size=[64,64]", "generator=null", "stages.clcae.task.images={_part_: test}"),
    ]
    assert rewritten(given, configs=CONFIGS) == given
    again = rewritten([f"data={tmp_path}"], configs=CONFIGS)
    assert rewritten(again, configs=CONFIGS) == again
    assert rewritten(["test=portraits_plain"], configs=CONFIGS) == ["data@test=portraits_plain"]
    sweep = ["--multirun", "run=a,b", "method=clcae_official,clcae_portraits"]
    assert rewritten(sweep, configs=CONFIGS) == sweep


def test_neither_a_choice_nor_a_file() -> None:
    with pytest.raises(
        UsageError, match=r"method=clcae_ffgq is neither a file nor one of .*clcae_ffhq"
    ):
        rewritten(["method=clcae_ffgq"], configs=CONFIGS)


def assert_one_line(arguments: list[str], *words: str, status: int, folder: Path = ROOT) -> None:
    done = run_python(*arguments, folder=folder)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_an_unknown_experiment() -> None:
    words = ["no experiment 'nonsense'", *choices_of(CONFIGS, "experiment")]
    assert_one_line([str(ROOT / "train.py"), "+experiment=nonsense"], *words, status=2)


def test_a_misspelt_key() -> None:
    words = ["trainer.stepz", "did you mean", "trainer.steps"]
    assert_one_line([str(ROOT / "train.py"), "trainer.stepz=3"], *words, status=2)


def test_a_failure_during_training_and_nothing_is_littered(tmp_path: Path) -> None:
    poisoned = command(Path("runs"), "+stages.fit.task.poison=2", "trainer.progress=false")
    assert_one_line(poisoned, "step 2", "'fit' is nan", status=1, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["toy"]


def test_help_teaches() -> None:
    done = run_python(str(ROOT / "train.py"), "--help")
    assert done.returncode == 0
    for word in ["+experiment=", "torchrun", "trainer: debug", "runs/NAME", "optim"]:
        assert word in done.stdout


def explained_here(error: Exception) -> tuple[str, int] | None:
    return explain(error, name="train.py", configs=CONFIGS, primary="train", arguments=[])


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("generator=null", "Config group override must be a string or a list"),
        ("experiment=ffhq", "experiment is added with a plus: +experiment=NAME, one of cars"),
        (
            "method=nothing",
            "method=nothing is neither a file nor one of base_code_search_portraits",
        ),
        ("method=optimization", "method is a Optimization, expected CLCAE or OfficialCLCAE"),
        ("stages.clcae.task.method={_part_: methods}", "no part 'methods'; there are generator"),
    ],
)
def test_mistakes_are_one_line(argument: str, said: str, tmp_path: Path) -> None:
    few = ["data.num_people=8", "validation.num_people=8", f"paths.runs={tmp_path}"]
    arguments = [str(ROOT / "train.py"), argument, "~stages.aligner", "trainer.limit_steps=1", *few]
    done = run_python(*arguments)
    assert done.returncode in (1, 2), done.stderr
    assert done.stderr.startswith("train.py: ") and said in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_wrong_usage_is_one_line_of_a_debug_run_too(tmp_path: Path) -> None:
    first = ["trainer=debug", f"paths.runs={tmp_path / 'runs'}"]
    folder = tmp_path / "runs" / "portraits-debug"
    (folder / "checkpoints" / "clcae").mkdir(parents=True)
    (folder / "checkpoints" / "clcae" / "last.pt").touch()
    (folder / "config.yaml").write_text("seed: 5\n")
    done = run_python(str(ROOT / "train.py"), *first)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "holds a run with another configuration" in done.stderr
    lost = run_python(str(ROOT / "train.py"), *first, "generator.source=lost.pt", "run=other")
    assert lost.returncode == 1 and "Traceback" in lost.stderr
    assert lost.stderr.splitlines()[-1].startswith("train.py: ") and "lost.pt" in lost.stderr


def raised_here() -> None:
    raise ValueError("of somebody else")


def test_only_our_own_value_errors_are_explained() -> None:
    with pytest.raises(ValueError) as ours:
        Ranger([], period=0)
    with pytest.raises(ValueError) as theirs:
        raised_here()
    explained = explained_here(ours.value)
    assert explained is not None
    assert explained[1] == 1
    assert explained_here(theirs.value) is None


def test_a_missing_file_is_explained() -> None:
    error = FileNotFoundError(2, "No such file or directory", "faces.pt")
    assert explained_here(error) == (str(error), 1)
    assert "faces.pt" in str(error)
