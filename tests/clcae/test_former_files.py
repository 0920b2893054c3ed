"""Native files of former commits still load, and files written now say the same settings.

A class may have got further ones since; what a former file does not say is their default.
"""

from pathlib import Path

import former
import pytest
import torch

from clcae import serialization
from clcae.serialization import load, read_metadata, save

FILES = sorted((Path(former.__file__).parent / "former").glob("*.safetensors"))

LATER = {
    "e4e": {"stem_stride": 1, "num_offsets": None},
    "psp": {"stem_stride": 1},
    "styleres": {"source": "e1"},
    "projection": {
        **dict.fromkeys(["outputs", "layer", "feature_lr", "encoder", "base_code", "perceptual"]),
        **dict.fromkeys(["perceptual_size", "weights", "truncated_rows", "patience", "at_once"]),
        **{"schedule": "ramp", "start": "mean", "noise": "fixed", "truncation": 1.0},
        **{"code_noise": 0.0, "least_gain": 0.01, "normal_samples": 1_000_000},
    },
}


def test_every_registered_class_has_a_file() -> None:
    held = {read_metadata(file).class_name for file in FILES}
    assert len(FILES) == 19
    classes = serialization._registry.items()  # other tests register classes of their own
    ours = {name for name, cls in classes if cls.__module__.startswith("clcae.")}
    assert ours - held <= {"lpips", "moco_resnet50"}  # 10 and 90 MB


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_former_file_loads_and_is_written_alike(file: Path, tmp_path: Path) -> None:
    metadata = read_metadata(file)
    settings = {**metadata.settings, **LATER.get(file.stem, {})}
    save(former.modules()[file.stem], tmp_path / "now", provenance={})
    assert read_metadata(tmp_path / "now").settings == settings
    module = load(file)
    save(module, tmp_path / "again", provenance={}, half=True)
    assert read_metadata(tmp_path / "again").settings == settings
    assert read_metadata(tmp_path / "again").sha256 == metadata.sha256
    assert not any(torch.isnan(value).any() for value in module.state_dict().values())
