"""A small method with its directions, for the commands over photographs."""

from pathlib import Path

import pytest
from small_methods import small_clcae, write_directions, write_method


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of the method; directions.safetensors lies beside it."""
    folder = tmp_path_factory.mktemp("method")
    write_directions(folder / "directions.safetensors")
    return write_method(small_clcae(), folder / "small.safetensors")
