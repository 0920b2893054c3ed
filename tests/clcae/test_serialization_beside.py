"""Native files whose generator lies in a file beside them."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_methods import small_e4e

from clcae.methods.e4e import E4E
from clcae.serialization import load, read_metadata, save


@pytest.fixture
def pair(tmp_path: Path) -> tuple[E4E, Path]:
    """A method whose generator lies in a file beside it."""
    whole = small_e4e()
    save(whole.generator, tmp_path / "generator.safetensors", provenance={})
    save(whole, tmp_path / "whole.st", provenance={}, beside={"generator": "generator.safetensors"})
    return whole, tmp_path / "whole.st"


def test_a_part_may_lie_in_a_file_beside(pair: tuple[E4E, Path]) -> None:
    whole, path = pair
    alone = path.with_name("alone.st")
    save(whole, alone, provenance={})
    assert path.stat().st_size < alone.stat().st_size
    for loaded in (load(path, expected=E4E), load(alone, expected=E4E)):
        assert loaded.state_dict().keys() == whole.state_dict().keys()
        for key, value in whole.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value)


def test_a_file_beside_is_the_one_it_was_made_with(pair: tuple[E4E, Path]) -> None:
    whole, path = pair
    part = path.with_name("generator.safetensors")
    other = copy.deepcopy(whole)
    other.generator.w_average.add_(1)
    with pytest.raises(ValueError, match=r"generator\.safetensors: .* differs"):
        save(other, path, provenance={}, beside={"generator": part.name})
    save(other.generator, part, provenance={})
    with pytest.raises(ValueError, match=r"another generator than the one this was made with"):
        load(path)
    part.unlink()
    with pytest.raises(FileNotFoundError, match=r"generator\.safetensors, which is not beside it"):
        load(path)
    with pytest.raises(FileNotFoundError, match=r"generator\.safetensors"):
        save(whole, path, provenance={}, beside={"generator": part.name})


@pytest.mark.parametrize(
    "name", ["../generator.safetensors", "/etc/passwd", "", "whole.st", 7, None]
)
def test_a_reference_stays_in_its_folder(pair: tuple[E4E, Path], name: object) -> None:
    _, path = pair
    reference = {"$file": name, "sha256": read_metadata(path).settings["generator"]["sha256"]}
    rewrite(path, {**read_metadata(path).settings, "generator": reference})
    with pytest.raises(ValueError, match="no file beside this one"):
        load(path)


def test_references_form_no_circle(pair: tuple[E4E, Path]) -> None:
    _, path = pair
    other = path.with_name("other.st")
    other.write_bytes(path.read_bytes())
    reference = {"$file": "other.st", "sha256": read_metadata(other).sha256}
    rewrite(path, {**read_metadata(path).settings, "generator": reference})
    with pytest.raises(ValueError, match="points to a further file"):
        load(path)


def rewrite(path: Path, settings: Mapping[str, Any]) -> None:
    """The same file with other settings."""
    metadata = read_metadata(path)
    fields = {
        "format_version": metadata.format_version,
        "class": metadata.class_name,
        "settings": dict(settings),
        "provenance": {},
        "dtype": metadata.dtype,
        "sha256": metadata.sha256,
    }
    save_file(load_file(path), path, metadata={"clcae": json.dumps(fields)})
