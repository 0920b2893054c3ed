"""Official files of the judging networks, which never train.

ArcFace, CurricularFace and MoCo v2; LPIPS, whose two parts are torchvision's AlexNet or VGG16 and
the factors that the package lpips brings along; the Inception networks of FID, torchvision and
facenet. Downloads of their authors are looked for in torch.hub's folder, where the packages
themselves would put them; nothing is downloaded here. Files whose name holds the beginning of their
sha256 are checked against it, as torch.hub does.
"""

import importlib.util
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from clcae.construction import without_weights
from clcae.files import sha256
from clcae.frozen.face_embedders import FaceEmbedder, arcface_ir_se50, curricularface_ir_101
from clcae.frozen.inception import FaceNet, TFInception, TorchvisionInception
from clcae.frozen.judges import PaperJudges
from clcae.frozen.moco import MoCo
from clcae.frozen.perceptual import LPIPS, Classifier
from clcae.frozen.vgg import VGGFeature
from clcae.nn.trunk import Trunk
from clcae.pretrained.contents import unwrapped
from clcae.pretrained.keymap import Entry, KeyMap, module_entries, trunk_entries
from clcae.unpickling.torch_file import read_torch_file

ModuleType = TypeVar("ModuleType", bound=nn.Module)

ARCFACE = "ArcFace IR-SE50 (model_ir_se50.pth)"
CURRICULARFACE = "CurricularFace IR-101 (CurricularFace_Backbone.pth)"
VGG = "VGG16 of IDInvert (vgg16.pth of genforce/idinvert_pytorch)"
MOCO = "MoCo v2 ResNet-50 (state_dict of moco_v2_800ep_pretrain.pth)"
_IGNORED_BY_MOCO = (  # the projection head and the momentum encoder with its queue
    r"module\.encoder_q\.fc\..*",
    r"module\.encoder_k\..*",
    r"module\.queue(_ptr)?",
)
_COUNTER = "num_batches_tracked"
_SIZES = [1 << 26] * 1000  # more tensors, and larger ones, than any of these networks has


@dataclass(frozen=True)
class WeightFile:
    """A weight file that users fetch by hand.

    Args:
        what: the network, in words.
        url: where it is.
        digest: first digits of its sha256; None where they are not checked.
    """

    what: str
    url: str
    digest: str | None = None

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[1]

    def find(self, path: str | Path | None) -> Path:
        """Finds the file at `path`, or in torch.hub's folder.

        Raises:
            FileNotFoundError: if there is none, with where to get it and where to put it.
            ValueError: if it is another file.
        """
        hub = Path(torch.hub.get_dir()) / "checkpoints"
        found = hub / self.name if path is None else Path(path)
        if not found.is_file():
            raise FileNotFoundError(
                f"{self.what} needs {self.name}, and there is no file {found}: get it from "
                f"{self.url} and put it there, or name its path"
            )
        if self.digest is not None and not (digest := sha256(found)).startswith(self.digest):
            raise ValueError(
                f"{found} is not {self.name}: its sha256 begins with {digest[:8]}, "
                f"not {self.digest}; get it again from {self.url}"
            )
        return found


_RELEASES = "https://github.com/{}/releases/download/{}"
_TORCHVISION = "https://download.pytorch.org/models/"
TF_INCEPTION = WeightFile(
    what="FID's Inception",
    url=_RELEASES.format("toshas/torch-fidelity", "v0.2.0")
    + "/weights-inception-2015-12-05-6726825d.pth",
    digest="6726825d",
)
TORCHVISION_INCEPTION = WeightFile(
    what="torchvision's Inception",
    url=f"{_TORCHVISION}inception_v3_google-0cc3c7bd.pth",
    digest="0cc3c7bd",
)
FACENET = WeightFile(
    what="facenet's InceptionResnetV1",
    url=_RELEASES.format("timesler/facenet-pytorch", "v2.2.9") + "/20180402-114759-vggface2.pt",
)
TRUNKS = {
    "alex": WeightFile(what="LPIPS", url=f"{_TORCHVISION}alexnet-owt-7be5be79.pth"),
    "vgg": WeightFile(what="LPIPS", url=f"{_TORCHVISION}vgg16-397923af.pth"),
}


def face_embedder_keymap(embedder: FaceEmbedder, layout: str) -> KeyMap:
    """Returns the table of a face recogniser in the layout of `Backbone`."""
    entries = trunk_entries(embedder.trunk, source="", target="trunk.")
    for index, name in ((0, "norm"), (3, "linear"), (4, "embedding_norm")):  # 1, 2 hold nothing
        part = embedder.get_submodule(name)
        entries += module_entries(part, source=f"output_layer.{index}", target=name)
    return KeyMap(layout=layout, entries=tuple(entries))


def moco_keymap(moco: MoCo) -> KeyMap:
    """Returns the table of `module.encoder_q`; what else training kept is ignored."""
    entries = module_entries(moco.resnet, source="module.encoder_q", target="resnet")
    return KeyMap(layout=MOCO, entries=tuple(entries), ignored=_IGNORED_BY_MOCO)


def lpips_keymap(lpips: LPIPS) -> KeyMap:
    """Returns the table of a torchvision classifier's features and of lpips's factors."""
    entries = module_entries(lpips.trunk, source="features", target="trunk")
    entries += [
        Entry(f"lin{index}.model.1.weight", f"factors.{index}")
        for index in range(len(lpips.factors))
    ]
    layout = f"pair of {TRUNKS[lpips.classifier].name} and lpips's v0.1 weights"
    return KeyMap(layout=layout, entries=tuple(entries), ignored=(r"classifier\..*",))


def vgg_keymap(vgg: VGGFeature) -> KeyMap:
    """Returns the table of IDInvert's VGG16; its three last convolutions are ignored."""
    entries = tuple(Entry(f"layer{key}", f"trunk.{key}") for key in vgg.trunk.state_dict())
    return KeyMap(layout=VGG, entries=entries, ignored=(r"layer2[468]\..*",))


def arcface_from_state(state: Mapping[str, Tensor]) -> FaceEmbedder:
    """Builds the identity network of training losses, in evaluation mode; copies no tensor.

    Raises:
        ValueError: if the keys are not of this layout; lists what is wrong.
    """
    return _filled(arcface_ir_se50, lambda made: face_embedder_keymap(made, ARCFACE), state)


def curricularface_from_state(state: Mapping[str, Tensor]) -> FaceEmbedder:
    """Builds the identity network of evaluations, as above."""
    make = curricularface_ir_101
    return _filled(make, lambda made: face_embedder_keymap(made, CURRICULARFACE), state)


def moco_from_state(state: Mapping[str, Tensor]) -> MoCo:
    """Builds the object network from the file's `state_dict`, as above."""
    return _filled(MoCo, moco_keymap, state)


def vgg_from_state(state: Mapping[str, Tensor]) -> VGGFeature:
    """Builds the perceptual network of in-domain inversion, as above."""
    return _filled(VGGFeature, vgg_keymap, state)


def tf_inception_from_state(state: Mapping[str, Tensor]) -> TFInception:
    """Builds FID's network. Raises ValueError as above, or if torch-fidelity is not installed."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ValueError(
            "FID's Inception needs torch-fidelity: pip install -e '.[eval]'"
        ) from error
    from torchvision.models import inception_v3  # slow to import; it has the same names and shapes

    twin = without_weights(
        lambda: inception_v3(weights=None, aux_logits=False, init_weights=False, num_classes=1008),
        sizes=_SIZES,
    )
    # The package unpickles what it is given, so it is given what was read safely.
    buffer = io.BytesIO()
    torch.save(_same_keys(twin, TF_INCEPTION).to_ours(_with_counters(state, twin), twin), buffer)
    buffer.seek(0)
    extractor = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer
    )
    return TFInception(extractor=extractor)


def torchvision_inception_from_state(state: Mapping[str, Tensor]) -> TorchvisionInception:
    """Builds torchvision's network, without the classifiers. Raises as above."""
    network = TorchvisionInception()
    keymap = _same_keys(network.trunk, TORCHVISION_INCEPTION, r"AuxLogits\..*", r"fc\..*")
    keymap.fill(network.trunk, _with_counters(state, network.trunk))
    return network


def facenet_from_state(state: Mapping[str, Tensor]) -> FaceNet:
    """Builds facenet's network, without the classifier. Raises as above."""
    try:
        from facenet_pytorch import InceptionResnetV1
    except ImportError as error:
        raise ValueError(
            "InceptionResnetV1 needs facenet-pytorch: pip install -e '.[face]'"
        ) from error
    network = FaceNet(network=InceptionResnetV1())
    keymap = _same_keys(network.network, FACENET, r"logits\..*")
    keymap.fill(network.network, _with_counters(state, network.network))
    return network


def load_arcface(path: str | Path) -> FaceEmbedder:
    """Loads `model_ir_se50.pth`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read safely, or holds something else.
    """
    return arcface_from_state(_read(path, ARCFACE))


def load_arcface_trunk(path: str | Path) -> Trunk:
    """Loads the trunk of `model_ir_se50.pth`, where encoders begin. Raises as above."""
    return load_arcface(path).trunk


def load_curricularface(path: str | Path) -> FaceEmbedder:
    """Loads `CurricularFace_Backbone.pth`. Raises as above."""
    return curricularface_from_state(_read(path, CURRICULARFACE))


def load_moco(path: str | Path) -> MoCo:
    """Loads `moco_v2_800ep_pretrain.pth` or `.pth.tar`. Raises as above."""
    return moco_from_state(_read(path, MOCO))


def load_tf_inception(path: str | Path | None = None) -> TFInception:
    """Loads torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`.

    Without a path looks in torch.hub's folder (TORCH_HOME moves it).

    Raises:
        FileNotFoundError: if it is not there, with where to get it.
        ValueError: if it is another file, or torch-fidelity is not installed.
    """
    return tf_inception_from_state(_read(TF_INCEPTION.find(path), TF_INCEPTION.name))


def load_torchvision_inception(path: str | Path | None = None) -> TorchvisionInception:
    """Loads torchvision's `inception_v3_google-0cc3c7bd.pth`. As `load_tf_inception`."""
    found = TORCHVISION_INCEPTION.find(path)
    return torchvision_inception_from_state(_read(found, TORCHVISION_INCEPTION.name))


def load_facenet(path: str | Path | None = None) -> FaceNet:
    """Loads facenet-pytorch's `20180402-114759-vggface2.pt`. As `load_tf_inception`."""
    return facenet_from_state(_read(FACENET.find(path), FACENET.name))


def load_lpips(trunk: str | Path | None = None, *, classifier: Classifier = "alex") -> LPIPS:
    """Loads LPIPS v0.1: linear layers of the package lpips, the trunk from a file.

    Args:
        trunk: torchvision's file of the classifier; None looks in torch.hub's folder.
        classifier: "alex", which pSp, e4e and CLCAE use, or "vgg".

    Raises:
        FileNotFoundError: if the trunk is not there, with where to get it.
        ImportError: if the package lpips is not installed.
        ValueError: if a file cannot be read safely, or holds something else.
    """
    if classifier not in TRUNKS:
        raise ValueError(f"classifier is {classifier!r}, expected 'alex' or 'vgg'")
    file = TRUNKS[classifier]
    path = file.find(trunk)
    package = importlib.util.find_spec("lpips")
    if package is None or package.origin is None:
        raise ImportError("LPIPS needs the package lpips for its weights: pip install lpips==0.1.4")
    factors = Path(package.origin).parent / "weights" / "v0.1" / f"{classifier}.pth"
    state = _read(path, file.name) | _read(factors, f"LPIPS's {classifier} weights")
    return _filled(lambda: LPIPS(classifier=classifier), lpips_keymap, state)


def load_vgg_feature(path: str | Path) -> VGGFeature:
    """Loads `vgg16.pth` of genforce/idinvert_pytorch, whose weights are those of Keras.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read safely, or holds something else.
    """
    return vgg_from_state(_read(path, VGG))


def face_judges(*, arcface: str | Path, lpips_trunk: str | Path | None = None) -> PaperJudges:
    """Loads ArcFace and LPIPS (AlexNet), frozen, with which faces are judged. Raises as they."""
    return PaperJudges(
        identity=load_arcface(arcface),
        perceptual=load_lpips(lpips_trunk),
        identity_name="ArcFace IR-SE50",
    )


def object_judges(*, moco: str | Path, lpips_trunk: str | Path | None = None) -> PaperJudges:
    """Loads MoCo v2 and LPIPS (AlexNet), frozen, with which all else is judged. Raises as they."""
    return PaperJudges(
        identity=load_moco(moco),
        perceptual=load_lpips(lpips_trunk),
        identity_name="MoCo v2 ResNet-50",
    )


def _filled(
    make: Callable[[], ModuleType],
    keymap: Callable[[ModuleType], KeyMap],
    state: Mapping[str, Tensor],
) -> ModuleType:
    module = without_weights(make, sizes=_SIZES)
    return keymap(module).fill(module, state).eval().requires_grad_(False)


def _same_keys(module: nn.Module, file: WeightFile, *ignored: str) -> KeyMap:
    entries = tuple(Entry(key, key) for key in module.state_dict())
    return KeyMap(layout=file.name, entries=entries, ignored=ignored)


def _with_counters(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Adds the counters of batch normalisation, which a file may lack."""
    counters = (key for key in module.state_dict() if key.endswith(_COUNTER))
    return {**dict.fromkeys(counters, torch.tensor(0)), **state}


def _read(path: str | Path, what: str) -> dict[str, Tensor]:
    """Reads the flat state dict of a file, out of its `state_dict` where it has one."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}, expected {what}")
    contents = read_torch_file(path)
    if isinstance(contents, Mapping):
        contents = unwrapped(contents.get("state_dict", contents))
    if not isinstance(contents, Mapping):
        raise ValueError(f"{path} holds a {type(contents).__name__}, expected {what}")
    return {key: value for key, value in contents.items() if isinstance(value, Tensor)}
