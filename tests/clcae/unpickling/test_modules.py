"""Whole modules that torch.save pickled load by their tensors; hostile ones are refused."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
import whole_modules
from hostile_files import in_stream, in_zip, proto, streamed, text, zipped
from official import state_dict
from official_files import e4e_to_checkpoint, nvidia_state
from small_methods import small_e4e
from torch import Tensor, nn
from whole_modules import whole, whole_method

import clcae
from clcae.pretrained.frozen import load_arcface
from clcae.pretrained.loading import Imported, import_checkpoint
from clcae.pretrained.rosinality import generator_to_state
from clcae.stylegan2 import Generator
from clcae.unpickling.modules import MAX_DEPTH, ModuleState
from clcae.unpickling.torch_file import read_torch_file

READERS = (read_torch_file, import_checkpoint)
FORMS = [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pt"


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    settings = {"resolution": 16, "z_dim": 12, "w_dim": 12, "channels": [8, 6, 4]}
    generator = Generator(**settings, mapping_layers=2).eval()
    generator.update_average()
    return generator


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return [*first] == [*second] and all(torch.equal(first[key], second[key]) for key in first)


def note(imported: Imported) -> str:
    (line,) = (line for line in imported.report.notes if "whole module" in line)
    return line


@pytest.mark.parametrize("form", FORMS)
def test_the_state_dict_is_that_of_torch(path: Path, form: dict[str, Any]) -> None:
    torch.manual_seed(0)
    shared = nn.Linear(3, 3)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.PReLU(),
        nn.BatchNorm2d(4),
        nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.Dropout())}),
        nn.ParameterList([torch.ones(2), torch.zeros(1)]),
        nn.MultiheadAttention(4, 2),
        nn.TransformerEncoderLayer(4, 2, 8),
        nn.Linear(2, 2, bias=False).requires_grad_(False),
    )
    module[0].weight.tag = "an attribute of a parameter"
    module.register_buffer("kept", torch.arange(3))
    module.register_buffer("left_out", torch.arange(3), persistent=False)
    module.register_buffer("none", None)
    torch.save(module, path, **form)
    read = read_torch_file(path)
    assert isinstance(read, ModuleState) and read.class_name.endswith("container.Sequential")
    assert equal(read, module.state_dict())
    assert not any(tensor.requires_grad for tensor in read.values())
    torch.save({"a": module, "b": module, "step": 3}, path, **form)
    read = read_torch_file(path)
    assert equal(read["a"], module.state_dict()) and read["a"] is read["b"] and read["step"] == 3


@pytest.mark.parametrize("form", FORMS)
def test_whole_generators_of_rosinality(
    path: Path, generator: Generator, form: dict[str, Any]
) -> None:
    state, average = generator_to_state(generator)
    torch.save({"g_ema": state, "latent_avg": average}, path)
    expected = import_checkpoint(path)
    whole_modules.write({"g_ema": whole(state), "latent_avg": average}, path, **form)
    with pytest.raises((ModuleNotFoundError, AttributeError)):
        torch.load(path, weights_only=False)  # the classes are not there
    imported = import_checkpoint(path)
    assert equal(imported.module.state_dict(), expected.module.state_dict())
    assert imported.layout == expected.layout
    assert sorted(imported.report.used) == sorted(expected.report.used)
    assert note(imported) == (
        "g_ema is a whole module (models.stylegan2.model.Generator): its tensors are read, its "
        "code is not run"
    )
    torch.save(state, path)
    bare = import_checkpoint(path).module.state_dict()
    whole_modules.write(whole(state), path, **form)
    imported = import_checkpoint(path)
    assert equal(imported.module.state_dict(), bare)
    assert note(imported).startswith("the file is a whole module")
    assert any("no latent_avg" in line for line in imported.report.notes)


def test_wrapped_modules_and_those_of_a_training(path: Path, generator: Generator) -> None:
    state, average = generator_to_state(generator)
    wrapped = nn.DataParallel(whole(state))
    discriminator = whole(state_dict("rosinality_disc_64"))
    whole_modules.write({"g_ema": wrapped, "d": discriminator, "latent_avg": average}, path)
    imported = import_checkpoint(path)
    assert equal(imported.module.state_dict(), generator.state_dict())
    notes = imported.report.notes
    assert sum("whole module" in line for line in notes) == 2
    assert any("without the module." in line for line in notes)
    torch.save({"d": state_dict("rosinality_disc_64")}, path.parent / "d.pt")
    first, second = (import_checkpoint(p, which="d").module for p in (path, path.parent / "d.pt"))
    assert equal(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("form", FORMS)
def test_whole_networks_of_e4e(path: Path, form: dict[str, Any]) -> None:
    method = small_e4e()
    content = e4e_to_checkpoint(method)
    whole_modules.write(whole_method(content), path, **form)
    loaded = clcae.load_method(path)
    assert type(loaded) is type(method) and equal(loaded.state_dict(), method.state_dict())
    assert "models.psp.pSp" in note(import_checkpoint(path))
    module = whole(content["state_dict"], whole_modules.pSp)
    whole_modules.write({**content, "state_dict": module}, path, **form)
    assert equal(clcae.load_method(path).state_dict(), method.state_dict())


def test_other_layouts(path: Path, generator: Generator) -> None:
    whole_modules.write(whole(nvidia_state(generator)), path)
    assert equal(import_checkpoint(path).module.state_dict(), generator.state_dict())
    state = state_dict("arcface_irse50")
    torch.save(state, path)
    expected = load_arcface(path).state_dict()
    whole_modules.write(whole(state, nn.Module, whole_modules.bottleneck_IR_SE), path)
    assert equal(load_arcface(path).state_dict(), expected)
    assert equal(import_checkpoint(path).module.state_dict(), expected)


def refused(content: Any, path: Path, *words: str) -> None:
    whole_modules.write(content, path)
    with pytest.raises(ValueError, match=r"a\.pt") as caught:
        import_checkpoint(path)
    line = str(caught.value)
    assert all(word in line for word in words), line
    assert "\n" not in line and "weights_only" not in line


def test_what_no_layout_fits(path: Path, generator: Generator) -> None:
    state, average = generator_to_state(generator)
    refused(nn.Linear(2, 2), path, "holds weight, bias, which is no known layout")
    refused({"g_ema": nn.Sequential(nn.Linear(2, 2))}, path, "missing")
    refused(whole({**state, "extra.weight": torch.ones(2)}), path, "1 unexpected (extra.weight)")
    # Modules that nothing reads are named, however deep they lie.
    whole_file = {"g_ema": state, "latent_avg": average}
    for extra in (whole(state), [nn.Linear(2, 2)], {"a": ({"b": nn.Linear(2, 2)},)}):
        refused({**whole_file, "extra": extra}, path, "1 names that no rosinality", "(extra)")
    refused([nn.Linear(2, 2)], path, "holds a list, expected a dictionary")


def test_modules_that_hold_more_than_modules_do(path: Path) -> None:
    module = nn.Linear(2, 2)
    module.optimizer = torch.optim.SGD(module.parameters())
    refused(module, path, "torch.optim.sgd.SGD", "torch.save(network.state_dict()")
    for function in (os.system, eval, torch.hub.load):
        module = nn.Linear(2, 2)
        module.function = function
        refused(module, path, function.__name__)
    module = nn.Linear(2, 2)
    module._parameters["weight"] = "text"
    refused(module, path, "has a str for the tensor weight")


# Pickles by hand. A module's state: an empty one, and one with a module within.
EMPTY = b"}" + b"".join(text(f"_{p}") + b"}s" for p in ("parameters", "buffers", "modules"))
CLASS = b"cmodels.model\nG\n"


def holding(children: bytes, modules: bytes = b"}") -> bytes:
    """A state whose `_modules` are set by the operations."""
    parts = b"".join(text(f"_{part}") + b"}s" for part in ("parameters", "buffers"))
    return b"}" + parts + text("_modules") + modules + children + b"s"


def nested(depth: int) -> bytes:
    """Modules within modules, of a class that is named once."""
    opening = b"}" + text("_parameters") + b"}s" + text("_buffers") + b"}s" + text("_modules")
    start = CLASS + b"\x94" + b"0"  # in place 0 of the memo
    inner = b"h\x00)\x81" + EMPTY + b"b"
    one = b"h\x00)\x81" + opening + b"}" + text("a")
    return proto(start + one * depth + inner + b"ssb" * depth)


CYCLE = CLASS + b")\x81\x94" + holding(text("a") + b"h\x00s") + b"b"
LAUGHS = CLASS + b"\x940" + b"h\x00)\x81" + EMPTY + b"b\x940" + b"".join(
    b"h\x00)\x81" + holding(text("a") + b"h" + bytes([k]) + b"s" + text("b") + b"h" + bytes([k])
                            + b"s") + b"b\x940"
    for k in range(1, 60)
) + b"h\x3c"  # fmt: skip
SYSTEM = b"cposix\nsystem\n"


def handmade(canary: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles, and the words with which they are refused."""
    command = text(f"touch {canary}")
    named, whole_one = "names 'models.model.G'", CLASS + b")\x81" + EMPTY + b"b"
    child = holding(text("a") + SYSTEM + b"s")
    state = EMPTY + text("__setstate__") + SYSTEM + b"s"
    return {
        "class of the system": (SYSTEM + b")\x81" + EMPTY + b"b", "posix.system"),
        "class of a process": (b"csubprocess\nPopen\n)\x81" + EMPTY + b"b", "subprocess.Popen"),
        "class that builds": (b"cbuiltins\neval\n)\x81" + EMPTY + b"b", "builtins.eval"),
        "call": (CLASS + command + b"\x85R", named),
        "call without arguments": (CLASS + b")R", named),
        "call of the loader": (
            b"ctorch.storage\n_load_from_bytes\n" + command + b"\x85R",
            "torch.storage._load_from_bytes",
        ),
        "call of a module": (whole_one + b")R", "calls a ModuleStandIn"),
        "arguments": (CLASS + command + b"\x85\x81" + EMPTY + b"b", named),
        "arguments that are no tuple": (CLASS + b"]\x81" + EMPTY + b"b", named),
        "class alone": (CLASS, named),
        "class beside a dict": (b"}" + text("a") + CLASS + b"s", named),
        "class as a key": (b"}" + CLASS + b"Ns", "has a UnknownClass as a key"),
        "module as a key": (b"}" + whole_one + b"Ns", "has a ModuleStandIn as a key"),
        "no state": (CLASS + b")\x81", named),
        "state of no module": (CLASS + b")\x81}" + text("a") + b"Nsb", named),
        "state that is no dict": (CLASS + b")\x81]b", named),
        "state of None": (CLASS + b")\x81Nb", named),
        "state with slots": (CLASS + b")\x81" + EMPTY + b"N\x86b", named),
        "state of the class": (CLASS + EMPTY + b"b", "sets the state of a UnknownClass"),
        "parts that are no dict": (
            CLASS + b")\x81" + EMPTY + text("_modules") + b"]sb", named),
        "module with __setstate__": (CLASS + b")\x81" + state + b"b", "posix.system"),
        "function for a module": (CLASS + b")\x81" + child + b"b", "posix.system"),
        "class for a module": (
            CLASS + b"\x94)\x81" + holding(text("a") + b"h\x00s") + b"b", "a UnknownClass for"),
        "list for a module": (
            CLASS + b")\x81" + holding(text("a") + b"]s") + b"b", "a list for the module 'a.'"),
        "number for a name": (
            CLASS + b")\x81" + holding(b"K\x01" + whole_one + b"s") + b"b", "damaged module ''"),
        "dots in a name": (
            CLASS + b")\x81" + holding(text("a.b") + whole_one + b"s") + b"b", "damaged module"),
        "one name for two": (
            CLASS + b")\x81" + holding(text("a") + whole_one + b"s") + text("_buffers")
            + b"}" + text("a") + b"Nss" + b"b", "stands for two things"),
        "cycle": (CYCLE, "one within itself"),
        "deep": (nested(9_999)[2:-1], f"more than {MAX_DEPTH} modules"),
        "deeper": (nested(10_000)[2:-1], named),
        "as deep as none": (nested(MAX_DEPTH + 1)[2:-1], f"more than {MAX_DEPTH} modules"),
        "laughs": (LAUGHS, "modules"),
        "items": (CLASS + b")\x81" + EMPTY + b"b" + text("a") + b"Ns", "sets items of a Module"),
        "many": (CLASS + b"\x940](" + b"h\x00)\x81" * 20_000 + b"e", named),
        "long name": (b"\x8dX\x02" + bytes(6) + b"a" * 600 + text("G") + b"\x93)\x81" + EMPTY
                      + b"b", "aaa'..."),
        "name that is none": (text("models.model") + text("G()") + b"\x93)\x81" + EMPTY + b"b",
                              "G()"),
        "name with dots": (text("models") + text("model.G") + b"\x93)\x81" + EMPTY + b"b",
                           "models.model.G"),
        "persistent": (text("module") + command + b"NN" + b"tQ", ""),
    }  # fmt: skip


@pytest.mark.parametrize("name", handmade(Path("x")))
def test_hostile_modules(tmp_path: Path, refused: Any, name: str) -> None:
    canary = tmp_path / "canary"
    body, words = handmade(canary)[name]
    for data in (proto(body), proto(b"}" + text("g_ema") + body + b"s")):
        tracemalloc.start()
        refused(in_zip(data), words, READERS)
        refused(in_stream(data), words, READERS)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        tracemalloc.stop()
        refused(data)  # as a pickle of NVIDIA's
    assert not canary.exists()


def test_the_pickles_by_hand_are_read_where_they_are_honest(path: Path) -> None:
    whole_one = CLASS + b")\x81" + EMPTY + b"b"
    for body in (whole_one, CLASS + b")\x81" + holding(text("a") + whole_one + b"s") + b"b"):
        path.write_bytes(in_zip(proto(body)))
        assert read_torch_file(path) == {}
    path.write_bytes(in_zip(nested(MAX_DEPTH)))
    assert read_torch_file(path) == {}


class Runs(nn.Linear):
    """A module whose pickle calls a function."""

    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


def test_calls_within_modules(refused: Any) -> None:
    module = nn.Sequential(Runs(2, 2))
    with whole_modules.modules_named():
        for data in (zipped(module), streamed({"g_ema": module})):
            assert "posix.system" in refused(data, "", READERS)
    assert not Path("canary").exists()


def test_a_tensor_under_many_names(path: Path) -> None:
    module = nn.Module()
    tensor = nn.Parameter(torch.zeros(1 << 18))
    for index in range(40):
        module.register_parameter(f"a{index}", tensor)
    final = nn.Sequential(nn.Linear(1, 1))
    final[0].weight = tensor
    module.add_module("final_linear", final)
    refused(module, path, "share memory")


def test_tensors_under_more_names_than_the_file_holds(path: Path) -> None:
    part, tensor = nn.Module(), nn.Parameter(torch.zeros(1))
    for index in range(500):
        part.register_parameter(f"a{index}", tensor)
    module = nn.Module()
    for index in range(500):
        module.add_module(f"b{index}", part)
    tracemalloc.start()
    refused(module, path, "describes more data than the file holds")
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
