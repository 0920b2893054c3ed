"""Reads hostile bytes through every reader."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clcae.pretrained.loading import import_checkpoint
from clcae.pretrained.nvidia import read_nvidia_pickle
from clcae.unpickling.torch_file import read_torch_file


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """Reads the bytes through every reader; each must refuse in one line. The importer's line."""

    def check(data: bytes, words: str = "", readers: tuple = (), seconds: float = 20.0) -> str:
        path = tmp_path / "file.bin"
        path.write_bytes(data)
        line = ""
        for read in readers or (read_torch_file, read_nvidia_pickle, import_checkpoint):
            start = time.monotonic()
            with pytest.raises(ValueError, match=r"file\.bin") as caught:
                read(path)
            line = str(caught.value)
            assert time.monotonic() - start < seconds
            assert "\n" not in line and len(line) < 600 and line.isprintable()
        assert words in line, line
        return line

    return check
