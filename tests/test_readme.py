"""README and the guides: every command line parses, every script exists, every snippet runs."""

import importlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from training.commandline import FILES, composed

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def commands(page: Path) -> list[str]:
    """Lists the commands in the fenced blocks of a page, without remarks."""
    text = page.read_text().replace("\\\n", " ")
    blocks = [block for language, block in FENCE.findall(text) if language != "python"]
    lines = [line for block in blocks for line in block.splitlines()]
    found = [part.strip() for line in lines for part in re.split(r" {3,}| # ", line)[0].split("&&")]
    return sorted({c for c in found if re.match(r"(make|python|torchrun) .*\w", c)})


COMMANDS = [(page.name, command) for page in PAGES for command in commands(page)]
SNIPPETS = [block for language, block in FENCE.findall(README.read_text()) if language == "python"]


def test_commands_and_snippets_are_found() -> None:
    shown = [command for name, command in COMMANDS if name == README.name]
    for start in ("make train", "make test", "python train.py", "python scripts/edit.py"):
        assert any(command.startswith(start) for command in shown), start
    assert len(shown) >= 12 and SNIPPETS


def test_readme_is_short() -> None:
    assert README.stat().st_size <= 8000


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_parses(
    page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        for target in arguments:
            assert "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE), target
        return
    (index,) = (i for i, argument in enumerate(arguments) if argument.endswith(".py"))
    script, arguments = Path(arguments[index]), arguments[index + 1 :]
    assert (ROOT / script).is_file()
    monkeypatch.chdir(tmp_path)
    if (CONFIGS / f"{script.stem}.yaml").is_file():
        compose(script.stem, arguments)
        return
    parser = importlib.import_module(".".join(script.with_suffix("").parts))._parser()
    if "--help" in arguments:
        with pytest.raises(SystemExit, match="0"):
            parser.parse_args(arguments)
    else:
        parser.parse_args(arguments)


def compose(primary: str, arguments: Sequence[str]) -> None:
    """Composes the first run of a command of Hydra; files that it names are made."""
    first = [re.sub(r"^([^=\[]+=[^,\[]+),.*", r"\1", argument) for argument in arguments]
    overrides = [argument for argument in first if "=" in argument]
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if not {*key.split("@")}.isdisjoint(FILES):
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).touch()
    composed(CONFIGS, primary, overrides)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, README.name, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_or_mentions_exist(page: Path) -> None:
    for code in INLINE.findall(FENCE.sub("", page.read_text())):
        for script in re.findall(r"\b(?:scripts/\w+|train)\.py\b", code):
            assert (ROOT / script).is_file(), script
    for name in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
        assert (page.parent / name).exists(), name
