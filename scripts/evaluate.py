"""Measures a method under a protocol: evaluate.py [method=M] [data=D] [protocol=P]; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from clcae.data.sources import ImageSource
from clcae.evaluation.evaluate import Evaluation
from clcae.evaluation.networks import Networks
from clcae.evaluation.observer import EditMoves
from clcae.evaluation.preparation import Size
from clcae.evaluation.protocol import EditSpec, Protocol, read_protocol
from clcae.evaluation.rows import Row, remarks
from clcae.evaluation.subject import (
    Subject,
    folder_subject,
    generated_subject,
    method_subject,
    true_edits_subject,
)
from clcae.methods.interface import InversionMethod
from clcae.stylegan2.compilation import compiled
from clcae.tables.comparison import edit_sheets
from clcae.tables.formats import markdown_table
from editing import directions_named, move_of, shares_of
from training import distributed
from training.commandline import run_program
from training.errors import UsageError
from training.parts import Parts, check_type

NAME = "evaluate.py"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FOLDER = "clcae.data.folder.ImageFolder"
GENERATED = "clcae.data.generated.GeneratedCodes"
TRUE_EDITS = "clcae.portraits.TrueEditImages"
PORTRAITS = {"_target_": "clcae.load_generator", "source": "portraits"}
DECIMALS = {"MSE": 4, "L2": 4, "PSNR": 2, "ms": 1, "FID": 2, "KD": 5, "GFLOP": 2}
# Keys that decide no value, and keys whose content the digest has in place of their name.
NOT_IN_DIGEST = {
    *("results", "save", "again", "outputs", "paths", "device", "compile", "precision"),
    *("method", "generator", "weights", "data"),
}


def evaluate(config: Mapping[str, Any], *, data: str, device: torch.device) -> list[Row]:
    """Measures what is not in the results yet, and appends it to them.

    `config` is as configs/evaluate.yaml composes it, resolved; `data` names the data in rows.
    Returns the rows, those that were there included.

    Raises:
        UserError: if something is wrong that the user can put right; so are ValueError and
            FileNotFoundError.
    """
    for key, hint in {"batch_size": int | None, "num_parts": int, "save_every": int}.items():
        check_type(config[key], hint, where=key)
        if config[key] is not None and config[key] < 1:
            raise UsageError(f"{key} is {config[key]}, expected at least 1")
    protocol = read_protocol(config["protocol"])
    subject = _subject(config, protocol, device)
    evaluation = Evaluation(
        subject=subject,
        protocol=protocol,
        networks=Networks(paths=config["weights"], device=device),
        moves=partial(_moves, protocol=protocol, method=subject.method),
        settings=_settings(config),
        extra=_extra(config, data),
        precision=config["precision"],
        results=Path(config["results"]),
        save=Path(config["save"]) if config["save"] else None,
        again=config["again"],
    )
    done = {} if config["again"] else distributed.on_main(evaluation.finished)
    spaces = [space for space in subject.spaces if space not in done]
    if distributed.is_main():
        evaluation.clean(done)
        _announce(evaluation, [s for s in subject.spaces if s in done], config)
    if spaces:
        done |= evaluation.measure(
            spaces,
            processes=distributed,
            num_parts=config["num_parts"],
            save_every=config["save_every"],
        )
    return [done[space] for space in subject.spaces]


def report(rows: Sequence[Row], results: str, *, edits: Sequence[str] = ()) -> int:
    """Prints the table and all that is missing from it; returns the exit status.

    `edits` are the true edits, of each of which every metric has a value.
    """
    decimals = {name: 2 for name in rows[0].metrics if "PSNR" in name} | DECIMALS
    for sheet in edit_sheets(rows, edits=edits, decimals=decimals):
        print(markdown_table(sheet))
    print(f"{rows[0].num_images} images of {rows[0].extra['images']}; rows in {results}")
    for line in remarks(rows):
        print(f"{NAME}: {line}", file=sys.stderr)
    return 1 if rows[0].extra["left_out"] else 0


def _subject(config: Mapping[str, Any], protocol: Protocol, device: torch.device) -> Subject:
    """Builds the method and opens its pictures, or opens two folders."""
    made, given = config["reconstructions"], config["originals"]
    name = config["name"]
    sized = {"batch_size": config["batch_size"], "protocol": protocol, "enlarge": config["enlarge"]}
    if (made is None) != (given is None):
        raise UsageError("reconstructions and originals are folders to be given together")
    if made is not None:
        return folder_subject(made, given, name=name, **sized)
    node = config["method"]
    parts = Parts(
        config={"method": node, "generator": config.get("generator", PORTRAITS)},
        device=torch.device("cpu"),
        seed=0,
    )
    method = parts["method"]
    if not isinstance(method, InversionMethod):
        raise UsageError(f"method is a {type(method).__name__}, expected an inversion method")
    # In the type it was trained in: rows equal those of its run to the last digits.
    method = method.to(device).requires_grad_(False)
    method = compiled(method) if config["compile"] else method
    name = name or node.get("source") or method.label
    kept = {"name": name, "outputs": config["outputs"]}
    if (kind := config["data"]["_target_"]) not in (GENERATED, TRUE_EDITS):
        size = config["data"].get("size") or method.image_shape
        return method_subject(
            method,
            pictures=partial(_pictures, parts, config["data"]),
            shape=(size, size) if isinstance(size, int) else (size[0], size[1]),
            **kept,
            **sized,
        )
    kept["batch_size"] = config["batch_size"]
    if kind == GENERATED:
        return generated_subject(method, parts.build(config["data"], where="data"), **kept)
    pairs = parts.build(config["data"], where="data")
    return true_edits_subject(method, pairs, protocol=protocol, **kept)


def _pictures(parts: Parts, node: Mapping[str, Any], size: Size) -> ImageSource:
    """Opens the pictures of a data node; those of a folder at this height and width."""
    if node["_target_"] == FOLDER:
        folder: ImageSource = parts.build({**node, "size": list(size)}, where="data")
        return folder
    source: ImageSource = parts.build(node, where="data")
    distributed.on_main(partial(source.images, [0]))  # draws the cache, once for all processes
    return source


def _moves(spec: EditSpec, *, protocol: Protocol, method: InversionMethod | None) -> EditMoves:
    """Finds the direction of an edit. Raises ValueError or OSError if it cannot be made."""
    if not protocol.directions:
        raise FileNotFoundError(
            "no directions of this generator are named: protocol.directions=FILE or [FILE, ...]"
        )
    assert method is not None
    acting: dict[bool, EditMoves] = {}  # of W, of Z
    for direction in directions_named(spec.direction, protocol.directions):
        direction.check(method.generator)
        if direction.semantics != "increment":
            raise ValueError(f"direction {direction.name} sets a coordinate: no way back")
        strength = spec.strength
        if strength is None:  # of a true edit: the whole range, of which the strength is searched
            strength = spec.reach * direction.strengths[1 if (spec.amount or 0.0) > 0 else 0]
        there, back = (move_of([(direction, sign * strength)]) for sign in (1, -1))
        moves = EditMoves(there, back, direction.space, shares_of(direction, strength))
        acting[direction.space.is_mapped] = moves
    on_sphere = acting.get(False)
    return replace(acting[True], on_sphere=on_sphere) if True in acting else acting[False]


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of the configuration decides values; files count by their content elsewhere."""
    method = {k: v for k, v in config["method"].items() if k not in ("source", "generator")}
    data = {key: value for key, value in config["data"].items() if key != "cache"}
    kept = {key: value for key, value in config.items() if key not in NOT_IN_DIGEST}
    return {**kept, "data": data, "method": method}


def _extra(config: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Returns what rows say of the pictures, the configuration, and the seed of the training."""
    images = data.replace("_", " ")
    if config["originals"]:
        images = f"folder {Path(config['originals']).name}"
    elif data == "folder":
        images = f"folder {Path(config['data']['root']).name}"
    unused = {"paths"} if config["originals"] is None else {"paths", "method", "data"}
    kept = {key: value for key, value in config.items() if key not in unused}
    extra = {"images": config["images"] or images, "config": kept}
    return extra if config["seed"] is None else {**extra, "seed": config["seed"]}


def _chosen(edits: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Takes named edits of a protocol. Raises UsageError if one of true edits lacks a name."""
    true = ", ".join(name for name, edit in edits.items() if "amount" in (edit or ()))
    if true and (unknown := [name for name in names if name not in edits]):
        raise UsageError(f"data.edits has {unknown[0]!r}: the protocol has {true}")
    return {name: edits[name] for name in names if name in edits}


def _announce(evaluation: Evaluation, done: Sequence[str], config: Mapping[str, Any]) -> None:
    """Prints before the work what of it is not done."""
    for line in evaluation.notices():
        print(f"{NAME}: {line}", file=sys.stderr)
    for space in done:
        kept = "; nothing is saved of it" if config["save"] else ""
        where = f"in {config['results']} (again=true repeats it){kept}"
        print(f"{evaluation.subject.name} {space}: finished before, {where}")


def run(cfg: DictConfig) -> int:
    """Evaluates the composed configuration; returns the exit status."""
    hydra = HydraConfig.get()
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    data = str(hydra.runtime.choices.get("data"))
    if data == "folder" and not any("data.size=" in one for one in hydra.overrides.task):
        config["data"]["size"] = None  # what the method reads, and not what is trained on
    edits = config["protocol"].get("edits") or {}
    if config["data"]["_target_"] == TRUE_EDITS and isinstance(edits, dict):
        chosen = config["data"]["edits"]
        if isinstance(chosen, str):
            chosen = config["data"]["edits"] = [chosen]
        if chosen and isinstance(chosen, list | dict):  # else the data say what is expected
            edits = config["protocol"]["edits"] = _chosen(edits, chosen)
    with distributed.session(config["device"]) as device:
        rows = evaluate(config, data=data, device=device)
        if not distributed.is_main():
            return 0
        true = [name for name, edit in edits.items() if (edit or {}).get("amount") is not None]
        return report(rows, config["results"], edits=true)


if __name__ == "__main__":
    run_program(run, name="scripts/evaluate.py", configs=CONFIGS, primary="evaluate")
