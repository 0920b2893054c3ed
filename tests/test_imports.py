"""The contracts of import-linter, in pyproject.toml: layers, and who knows nothing of whom."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from importlinter.application.use_cases import lint_imports
from importlinter.configuration import configure

ROOT = Path(__file__).resolve().parents[1]
SHARED = {"__init__", "descent", "foundation", "interface", "inversion_file", "one_pass"}  # by all
SHARED |= {"search", "starts"}


def contracts() -> dict[str, Any]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["name"]: contract for contract in settings["contracts"]}


def test_every_contract_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    kept = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    said = capsys.readouterr().out
    assert kept, said
    assert len(contracts()) == 7 and "7 kept, 0 broken" in said


def test_every_method_is_under_the_contract_of_independence() -> None:
    contract = contracts()["Methods know nothing of each other"]
    methods = {path.stem for path in (ROOT / "clcae" / "methods").glob("*.py")} - SHARED
    assert contract["modules"] == [f"clcae.methods.{name}" for name in sorted(methods)]
