"""Makes the small tasks and the fixtures importable."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tests" / "fixtures", ROOT / "tests" / "training"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
