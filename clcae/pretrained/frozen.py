"""The judging networks' official files: ArcFace, CurricularFace, MoCo v2, and LPIPS's two parts.

`model_ir_se50.pth`, `CurricularFace_Backbone.pth`, `moco_v2_800ep_pretrain.pth`; torchvision's
AlexNet or VGG16 file with the factors that the package lpips brings along. Nothing is downloaded.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from clcae.frozen.face_embedders import FaceEmbedder, arcface_ir_se50, curricularface_ir_101
from clcae.frozen.judges import PaperJudges
from clcae.frozen.moco import MoCo
from clcae.frozen.perceptual import LPIPS, Classifier
from clcae.nn.trunk import ResidualUnit, SqueezeExcitation, Trunk
from clcae.pretrained.archives import read_torch_file
from clcae.pretrained.keymap import Entry, KeyMap

ARCFACE = "ArcFace IR-SE50 (model_ir_se50.pth)"
CURRICULARFACE = "CurricularFace IR-101 (CurricularFace_Backbone.pth)"
MOCO = "MoCo v2 ResNet-50 (state_dict of moco_v2_800ep_pretrain.pth)"
TRUNKS = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}  # torchvision's
_IGNORED_BY_MOCO = (  # the projection head and the momentum encoder with its queue
    r"module\.encoder_q\.fc\..*",
    r"module\.encoder_k\..*",
    r"module\.queue(_ptr)?",
)


def module_entries(module: nn.Module, *, source: str, target: str) -> list[Entry]:
    """Entries of a module whose tensors have the same names on both sides.

    Args:
        module: the module, of ours or of theirs.
        source: its foreign name.
        target: its name here.
    """
    return [Entry(f"{source}.{part}", f"{target}.{part}") for part in module.state_dict()]


def trunk_entries(trunk: Trunk, *, source: str, target: str) -> list[Entry]:
    """Entries of an IR or IR-SE trunk: `input_layer` and `body` of the pSp family's files.

    Args:
        trunk: which units have gates and shortcuts is read off it.
        source: prefix of the foreign keys, as "encoder.".
        target: prefix of ours, as "pyramid.trunk.".
    """
    entries = []
    for index, part in enumerate(trunk.stem):
        names = {"source": f"{source}input_layer.{index}", "target": f"{target}stem.{index}"}
        entries += module_entries(part, **names)
    units = [
        (f"{target}stages.{stage}.{name}", unit)
        for stage, children in enumerate(trunk.stages)
        for name, unit in children.named_children()
    ]
    for body, (ours, unit) in enumerate(units):
        assert isinstance(unit, ResidualUnit)
        theirs = f"{source}body.{body}"
        for index, name in enumerate(("norm0", "conv0", "act", "conv1", "norm1")):
            names = {"source": f"{theirs}.res_layer.{index}", "target": f"{ours}.{name}"}
            entries += module_entries(unit.get_submodule(name), **names)
        if isinstance(unit.gates, SqueezeExcitation):
            for part_name, name in (("fc1", "reduce"), ("fc2", "expand")):
                source_key = f"{theirs}.res_layer.5.{part_name}.weight"
                entries.append(Entry(source_key, f"{ours}.gates.{name}.weight"))
        if unit.shortcut is not None:
            names = {"source": f"{theirs}.shortcut_layer", "target": f"{ours}.shortcut"}
            entries += module_entries(unit.shortcut, **names)
    return entries


def face_embedder_keymap(embedder: FaceEmbedder, layout: str) -> KeyMap:
    """The table of a face recogniser in the layout of `Backbone`."""
    entries = trunk_entries(embedder.trunk, source="", target="trunk.")
    for index, name in ((0, "norm"), (3, "linear"), (4, "embedding_norm")):  # 1, 2 hold nothing
        part = embedder.get_submodule(name)
        entries += module_entries(part, source=f"output_layer.{index}", target=name)
    return KeyMap(layout=layout, entries=tuple(entries))


def moco_keymap(moco: MoCo) -> KeyMap:
    """The table of `module.encoder_q`; what else training kept is ignored."""
    entries = module_entries(moco.resnet, source="module.encoder_q", target="resnet")
    return KeyMap(layout=MOCO, entries=tuple(entries), ignored=_IGNORED_BY_MOCO)


def lpips_keymap(lpips: LPIPS) -> KeyMap:
    """The table of a torchvision classifier's features and of lpips's factors, in one dict."""
    entries = module_entries(lpips.trunk, source="features", target="trunk")
    entries += [
        Entry(f"lin{index}.model.1.weight", f"factors.{index}")
        for index in range(len(lpips.factors))
    ]
    layout = f"pair of {TRUNKS[lpips.classifier]} and lpips's v0.1 weights"
    return KeyMap(layout=layout, entries=tuple(entries), ignored=(r"classifier\..*",))


def arcface_from_state(state: Mapping[str, Tensor]) -> FaceEmbedder:
    """The identity network of training losses, in evaluation mode, from its flat state dict.

    Raises:
        ValueError: the keys are not of this layout; the message lists what is wrong.
    """
    embedder = arcface_ir_se50()
    embedder.load_state_dict(face_embedder_keymap(embedder, ARCFACE).to_ours(state, embedder))
    return embedder.eval().requires_grad_(False)


def curricularface_from_state(state: Mapping[str, Tensor]) -> FaceEmbedder:
    """The identity network of evaluations, as above."""
    embedder = curricularface_ir_101()
    keymap = face_embedder_keymap(embedder, CURRICULARFACE)
    embedder.load_state_dict(keymap.to_ours(state, embedder))
    return embedder.eval().requires_grad_(False)


def moco_from_state(state: Mapping[str, Tensor]) -> MoCo:
    """The object network, in evaluation mode, from the file's `state_dict`. Raises as above."""
    moco = MoCo()
    moco.load_state_dict(moco_keymap(moco).to_ours(state, moco))
    return moco.eval().requires_grad_(False)


def lpips_from_states(
    trunk: Mapping[str, Tensor],
    factors: Mapping[str, Tensor],
    *,
    classifier: Classifier = "alex",
) -> LPIPS:
    """LPIPS from torchvision's classifier and the package's linear layers. Raises as above."""
    lpips = LPIPS(classifier=classifier)
    lpips.load_state_dict(lpips_keymap(lpips).to_ours({**trunk, **factors}, lpips))
    return lpips


def load_arcface(path: str | Path) -> FaceEmbedder:
    """From `model_ir_se50.pth`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read safely, or holds something else.
    """
    return arcface_from_state(_read(Path(path), ARCFACE))


def load_curricularface(path: str | Path) -> FaceEmbedder:
    """From `CurricularFace_Backbone.pth`. Raises as above."""
    return curricularface_from_state(_read(Path(path), CURRICULARFACE))


def load_moco(path: str | Path) -> MoCo:
    """From `moco_v2_800ep_pretrain.pth` or `.pth.tar`. Raises as above."""
    return moco_from_state(_read(Path(path), MOCO))


def load_lpips(trunk: str | Path | None = None, *, classifier: Classifier = "alex") -> LPIPS:
    """LPIPS v0.1; its linear layers come with the package lpips, its trunk is a file of yours.

    Args:
        trunk: torchvision's file of the classifier; None looks in torch.hub's folder, where
            torchvision puts what it downloads (TORCH_HOME moves it).
        classifier: "alex", which pSp, e4e and CLCAE use, or "vgg".

    Raises:
        FileNotFoundError: the trunk is not there, with where to get it; nothing is downloaded.
        ImportError: the package lpips is not installed.
        ValueError: a file cannot be read safely, or holds something else.
    """
    name = TRUNKS.get(classifier)
    if name is None:
        raise ValueError(f"classifier is {classifier!r}, expected 'alex' or 'vgg'")
    path = Path(torch.hub.get_dir()) / "checkpoints" / name if trunk is None else Path(trunk)
    if not path.is_file():
        raise FileNotFoundError(
            f"LPIPS needs {name}, and there is no file {path}: get it from "
            f"https://download.pytorch.org/models/{name} and put it there, or name its path"
        )
    package = importlib.util.find_spec("lpips")
    if package is None or package.origin is None:
        raise ImportError("LPIPS needs the package lpips for its weights: pip install lpips==0.1.4")
    factors = Path(package.origin).parent / "weights" / "v0.1" / f"{classifier}.pth"
    what = f"LPIPS's {classifier} weights"
    return lpips_from_states(_read(path, name), _read(factors, what), classifier=classifier)


def face_judges(*, arcface: str | Path, lpips_trunk: str | Path | None = None) -> PaperJudges:
    """ArcFace and LPIPS (AlexNet), frozen: what faces are trained and judged with. Raises as they.

    Args:
        arcface: `model_ir_se50.pth`.
        lpips_trunk: as `trunk` of `load_lpips`.
    """
    return PaperJudges(
        identity=load_arcface(arcface),
        perceptual=load_lpips(lpips_trunk),
        identity_name="ArcFace IR-SE50",
    )


def object_judges(*, moco: str | Path, lpips_trunk: str | Path | None = None) -> PaperJudges:
    """MoCo v2 and LPIPS (AlexNet), frozen: the same for cars and all that has no face.

    Args:
        moco: `moco_v2_800ep_pretrain.pth`.
        lpips_trunk: as `trunk` of `load_lpips`.
    """
    return PaperJudges(
        identity=load_moco(moco),
        perceptual=load_lpips(lpips_trunk),
        identity_name="MoCo v2 ResNet-50",
    )


def _read(path: Path, what: str) -> dict[str, Tensor]:
    """The flat state dict of a file, out of its `state_dict` where it has one; executes nothing."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}, expected {what}")
    contents = read_torch_file(path)
    if isinstance(contents, Mapping):
        contents = contents.get("state_dict", contents)
    if not isinstance(contents, Mapping):
        raise ValueError(f"{path} holds a {type(contents).__name__}, expected {what}")
    return {key: value for key, value in contents.items() if isinstance(value, Tensor)}
