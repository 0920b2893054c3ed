"""Measures a method under a protocol: evaluate.py [method=M] [data=D] [protocol=P]; see --help."""

import difflib
import hashlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from torch import Tensor
from tqdm import tqdm

from clcae import load_method
from clcae.data.sources import ImageSource
from clcae.evaluation.evaluate import (
    Subject,
    canvas,
    chosen_outputs,
    default_batch,
    digest_of,
    finished_rows,
    source_digest,
    states_folder,
    with_missing,
    with_time,
)
from clcae.evaluation.labels import read_labels
from clcae.evaluation.measures import Label, build_measures
from clcae.evaluation.networks import MissingNetworkError, Networks
from clcae.evaluation.observation import EditMoves, MethodObserver, PairedFolders
from clcae.evaluation.picture_sizes import smallest_size
from clcae.evaluation.preparation import Size
from clcae.evaluation.protocol import EditSpec, Protocol, check_sizes, read_protocol
from clcae.evaluation.rows import Row, append_rows, source_commit
from clcae.evaluation.sharded import EvaluationPass
from clcae.methods.interface import InversionMethod
from clcae.methods.inversion_file import weights_digest
from clcae.ops.memory import keep_freed_memory
from clcae.portraits import ATTRIBUTES
from clcae.stylegan2.compilation import compiled
from clcae.tables.comparison import rows_sheet
from clcae.tables.formats import markdown_table
from editing import Direction, load_directions, move_of
from training import distributed
from training.errors import UsageError, explain
from training.parts import Parts

NAME = "evaluate.py"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TRACE = os.environ.get("HYDRA_FULL_ERROR") == "1"
# Hydra takes method=X for a choice of its group of networks to be trained.
SHORT = {"method": "method.source", "generator": "method.generator"}
DECIMALS = {"MSE": 4, "L2": 4, "PSNR": 2, "ms": 1, "FID": 2, "KD": 5, "GFLOP": 2}
# What decides no value, and what the digest has by its content instead of its name.
NOT_IN_DIGEST = (
    "results",
    "save",
    "again",
    "outputs",
    "paths",
    "weights",
    "method",
    "device",
    "compile",
)
FOLDER = "clcae.data.folder.ImageFolder"


def evaluate(config: Mapping[str, Any], *, data: str) -> list[Row]:
    """Measures what is not in the results yet, and appends it to them.

    Args:
        config: As configs/evaluate.yaml composes it, resolved.
        data: Name of the data, for the rows.

    Returns:
        The rows, those that were there included.

    Raises:
        UserError: Something that the user can put right, as ValueError and FileNotFoundError.
    """
    protocol = read_protocol(config["protocol"])
    with distributed.session(config["device"]) as device:
        networks = Networks(paths=config["weights"], device=device)
        subject, files = _subject(config, protocol, device)
        if not config["enlarge"]:
            check_sizes(protocol, subject.size, files)
        moves, labels, without = _edits(protocol, subject, networks)
        measures, missing = build_measures(protocol, networks.get, labels=labels, without=without)
        weights = {"method": subject.weights, **networks.digests(), **_file_digests(protocol)}
        digest = digest_of(
            {key: value for key, value in config.items() if key not in NOT_IN_DIGEST}
            | {"data": {key: value for key, value in config["data"].items() if key != "cache"}}
            | {"weights": weights, "pictures": source_digest(subject.source), "size": subject.size}
            | {"name": subject.name, "batch_size": subject.batch_size, "device": device.type}
            | ({"build": config["method"]["build"]} if config["method"]["build"] else {})
        )
        results = Path(config["results"])
        done = distributed.on_main(partial(finished_rows, results, digest, again=config["again"]))
        spaces = [space for space in subject.spaces if space not in done]
        _speak(subject, missing, [s for s in subject.spaces if s in done], config)
        if not spaces:
            return [done[space] for space in subject.spaces]
        second_look = any(spec.measure == "consistency" for spec in protocol.measures)
        order, subject = subject.spaces, _observing(subject, spaces, moves, second_look)
        unused = ("paths",) if subject.observer else ("paths", "method", "data")

        def finish(progress: EvaluationPass) -> dict[str, Row]:
            """The rows of all parts, written down; in one process alone."""
            whole = progress.merged()
            extra = {
                "images": config["images"] or _images(config, data),
                "left_out": whole.left_out,
                "commit": source_commit(),
                "num_threads": torch.get_num_threads(),
                "digest": digest,
                "weights": weights,
                "config": {key: value for key, value in config.items() if key not in unused},
            }
            if config["method"]["seed"] is not None:
                extra["seed"] = config["method"]["seed"]
            rows = whole.tally.rows(
                method=subject.name, num_images=whole.num_images, source=files, extra=extra
            )
            if protocol.timed_batch is not None:
                rows = with_time(rows, subject, batch=protocol.timed_batch, device=device)
            names = [spec.name for spec in protocol.measures]
            complete = {space: with_missing(row, names, missing) for space, row in rows.items()}
            append_rows(list(complete.values()), results)
            progress.clear()
            return complete

        with tqdm(total=len(subject.source), unit="image", disable=_quiet()) as bar:
            progress = EvaluationPass(
                source=subject.source,
                observe=subject.observe,
                measures=measures,
                batch_size=subject.batch_size,
                folder=states_folder(results, digest, spaces, config["save"]),
                device=device,
                num_parts=config["num_parts"],
                save_every=config["save_every"],
                pictures=Path(config["save"]) if config["save"] else None,
                progress=lambda count: bar.update(count * distributed.world_size()),
            )
            progress.run(rank=distributed.rank(), world_size=distributed.world_size())
        distributed.barrier()
        rows = {**done, **distributed.on_main(partial(finish, progress))}
        return [rows[space] for space in order]


def report(rows: Sequence[Row], results: str) -> int:
    """Prints the table and all that is missing from it; the exit status."""
    sheet = rows_sheet(rows, metrics=list(rows[0].metrics), decimals=DECIMALS)
    print(markdown_table(sheet))
    print(f"{rows[0].num_images} images of {rows[0].extra['images']}; rows in {results}")
    said = set[str]()
    for row in rows:
        for name, reason in row.extra.get("without_value", {}).items():
            # What has no protocol was said before the work; the rest once for all spaces.
            if name in row.protocol and (line := f"no value of {name}: {reason}") not in said:
                said.add(line)
                print(f"{NAME}: {line}", file=sys.stderr)
        for name, names in row.skipped.items():
            listed = ", ".join(names[:5]) + (", ..." if names[5:] else "")
            reason = row.extra["reasons"][name]
            line = f"{name} of {row.space} does not count {len(names)} images ({listed}): {reason}"
            print(f"{NAME}: {line}", file=sys.stderr)
    left_out: dict[str, str] = rows[0].extra["left_out"]
    for name, reason in left_out.items():
        print(f"{NAME}: {name} is left out: {reason}", file=sys.stderr)
    return 1 if left_out else 0


def _subject(
    config: Mapping[str, Any], protocol: Protocol, device: torch.device
) -> tuple[Subject, Size]:
    """Who is judged on which pictures, and the size of the smallest of their files."""
    made, given = config["reconstructions"], config["originals"]
    if (made is None) != (given is None):
        raise UsageError("reconstructions and originals are folders to be given together")
    if made is not None:
        pairs = PairedFolders(reconstructions=made, originals=given)
        size = smallest_size(pairs)
        name = config["method"]["name"] or Path(made).name
        batch = config["batch_size"] or 16
        return Subject(name, pairs, pairs.observe, (pairs.space,), size, batch), size
    given_name, method = _method(config["method"])
    method = method.to(device)  # as it was trained: rows equal those of its run to the last digits
    if config["compile"]:
        method = compiled(method)
    spaces = chosen_outputs(method, config["outputs"])
    source, shape, size = _pictures(config, protocol, method)
    observer = MethodObserver(method=method, outputs=spaces, shape=shape)
    subject = Subject(
        name=config["method"]["name"] or given_name,
        source=source,
        observe=observer,
        spaces=spaces,
        size=size,
        batch_size=config["batch_size"] or default_batch(method),
        weights=weights_digest(method),
        observer=observer,
    )
    return subject, smallest_size(source)


def _method(config: Mapping[str, Any]) -> tuple[str, InversionMethod]:
    """What is judged, and what it is called where the user does not say: a file, or a class."""
    if config["build"] is None:
        return str(config["source"]), load_method(config["source"], generator=config["generator"])
    source = config["generator"] or "portraits"
    generator = {"_target_": "clcae.load_generator", "source": source}
    parts = Parts(config={"generator": generator}, device=torch.device("cpu"), seed=0)
    method = parts.build(config["build"], where="method.build", generator=parts["generator"])
    if not isinstance(method, InversionMethod):
        kind = type(method).__name__
        raise UsageError(f"method.build makes a {kind}, expected an inversion method")
    return type(method).__name__, method.requires_grad_(False)


def _pictures(
    config: Mapping[str, Any], protocol: Protocol, method: InversionMethod
) -> tuple[ImageSource, Size, Size]:
    """The pictures, the size at which the method reads them, and that of the comparison."""
    node = config["data"]
    parts = Parts(config={}, device=torch.device("cpu"), seed=0)
    if node["_target_"] != FOLDER:
        source = parts.build(node, where="data")
        distributed.on_main(partial(_draw, source))  # into the cache, once for all processes
        height, width = source.images([0]).shape[-2:]
        return source, (height, width), (height, width)
    size = method.image_shape if node["size"] is None else node["size"]
    shape = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    source = parts.build({**node, "size": list(shape)}, where="data")
    larger = canvas(
        protocol,
        shape=shape,
        resolution=method.generator.resolution,
        files=smallest_size(source),
        enlarge=config["enlarge"],
    )
    return parts.build({**node, "size": list(larger)}, where="data"), shape, larger


def _draw(source: ImageSource) -> None:
    source.images([0])


def _edits(
    protocol: Protocol, subject: Subject, networks: Networks
) -> tuple[dict[str, EditMoves], dict[str, Label], dict[str, str]]:
    """The edits that can be made, who has their attributes, and why the others cannot be made."""
    moves: dict[str, EditMoves] = {}
    labels: dict[str, Label] = {}
    without: dict[str, str] = {}
    for name, spec in protocol.edits.items():
        try:
            if subject.observer is None:
                raise ValueError("files of pictures cannot be edited")
            move = _moves(spec, _directions(protocol), subject.observer.method)
            labels[name] = _label(spec, protocol, subject, networks)
            moves[name] = move
        except (ValueError, OSError, MissingNetworkError) as error:
            without[name] = " ".join(str(error).split())
    return moves, labels, without


def _directions(protocol: Protocol) -> dict[str, Direction]:
    """Those of all files, by name."""
    if not protocol.directions:
        raise FileNotFoundError(
            "no directions of this generator are named: protocol.directions=FILE or [FILE, ...]"
        )
    return {
        name: direction
        for file in protocol.directions
        for name, direction in load_directions(file).items()
    }


def _moves(
    spec: EditSpec, directions: Mapping[str, Direction], method: InversionMethod
) -> EditMoves:
    if spec.direction not in directions:
        raise ValueError(f"no direction is called {spec.direction!r}: {', '.join(directions)}")
    direction = directions[spec.direction]
    direction.check(method.generator)
    if direction.semantics != "increment":
        raise ValueError(f"direction {direction.name} sets a coordinate, which cannot be undone")
    there, back = (move_of([(direction, sign * spec.strength)]) for sign in (1, -1))
    return EditMoves(there, back, direction.space)


def _label(spec: EditSpec, protocol: Protocol, subject: Subject, networks: Networks) -> Label:
    """Who has what the edit gives: for a negative strength, who lacks the attribute."""
    if protocol.labels is not None:
        names = [subject.source.name(index) for index in range(len(subject.source))]
        known = read_labels(protocol.labels, attribute=spec.attribute, names=names)
        if spec.strength < 0:
            known = {name: 1.0 - value for name, value in known.items()}
        having = "without" if spec.strength < 0 else "with"
        return Label(known, f"{having} {spec.attribute} in {Path(protocol.labels).name}")
    if spec.attribute not in ATTRIBUTES:
        raise ValueError(
            f"nothing says who has {spec.attribute!r}: protocol.labels=FILE names annotations such "
            f"as CelebAMask-HQ-attribute-anno.txt (portraits have {', '.join(ATTRIBUTES)})"
        )
    judge = networks.get("portraits").attributes
    assert judge is not None
    return _judged(spec, judge)


def _judged(spec: EditSpec, judge: Callable[[Tensor], Tensor]) -> Label:
    """The label of an attribute of the portraits, by their regressor."""
    column, threshold = ATTRIBUTES.index(spec.attribute), spec.threshold

    def having(images: Tensor) -> Tensor:
        above = judge(images)[:, column] > threshold
        return (above if spec.strength > 0 else ~above).float()

    def amount(images: Tensor) -> Tensor:
        return judge(images)[:, column] * (1 if spec.strength > 0 else -1)

    sign = "above" if spec.strength > 0 else "not above"
    words = f"{spec.attribute} {sign} {threshold:g} for the portraits' regressor"
    unit = f"{spec.attribute}, in the units of the portraits' regressor"
    return Label(having, words, amount=amount, unit=unit)


def _file_digests(protocol: Protocol) -> dict[str, str]:
    """sha256 of the files of directions and labels."""
    named = [*protocol.directions, *([protocol.labels] if protocol.labels else [])]
    return {
        file: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for file in named
        if Path(file).is_file()
    }


def _observing(
    subject: Subject, spaces: Sequence[str], moves: dict[str, EditMoves], second_look: bool
) -> Subject:
    """The subject with the edits, and the spaces that are to be measured."""
    if subject.observer is None:
        return subject
    before = subject.observer
    observer = MethodObserver(
        method=before.method,
        outputs=spaces,
        shape=before.shape,
        edits=moves,
        second_look=second_look,
    )
    return replace(subject, spaces=tuple(spaces), observe=observer, observer=observer)


def _images(config: Mapping[str, Any], data: str) -> str:
    """The list of images in words, where the user gives none."""
    if config["originals"]:
        return f"folder {Path(config['originals']).name}"
    if data == "folder":
        return f"folder {Path(config['data']['root']).name}"
    return data.replace("_", " ")


def _speak(
    subject: Subject, missing: Mapping[str, str], done: Sequence[str], config: Mapping[str, Any]
) -> None:
    """Says before the work what of it is not done."""
    if not distributed.is_main():
        return
    for reason in dict.fromkeys(missing.values()):
        names = ", ".join(name for name, why in missing.items() if why == reason)
        print(f"{NAME}: without {names}: {reason}", file=sys.stderr)
    for space in done:
        kept = "; nothing is saved of it" if config["save"] else ""
        where = config["results"]
        print(f"{subject.name} {space}: finished before, in {where} (again=true repeats it){kept}")


def _quiet() -> bool | None:
    """Whether there is no bar; None lets the terminal decide."""
    return None if distributed.is_main() else True


def _rewritten(arguments: Iterable[str]) -> list[str]:
    """The command line with method=X as method.source=X."""
    written = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        long = SHORT.get(key) if equals and not value.startswith("{") else None
        written.append(f"{long}={value}" if long else argument)
    return written


def _missing_key(error: BaseException) -> str | None:
    """The line for a value that only the user can give."""
    key = getattr(error, "full_key", None)
    missing = isinstance(error, MissingMandatoryValue) and key
    return f"{key} is not given: write {key}=VALUE ({NAME} --help)" if missing else None


def _unknown_key(error: BaseException) -> str | None:
    """The line for a key that does not exist, with those that are like it."""
    wrong = re.search(r"Could not override '([^']+)'", str(error))
    if not isinstance(error, ConfigCompositionException) or not wrong:
        return None
    key = wrong.group(1)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(compose("evaluate"), resolve=False)
    known: Any = config
    for part in key.split(".")[:-1]:
        known = known.get(part) if isinstance(known, Mapping) else None
    known = list(known if isinstance(known, Mapping) else config)  # type: ignore[arg-type]
    close = difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"there is no key {key!r}; {meant}There are {', '.join(known)} ({NAME} --help)"


def fail(error: BaseException) -> NoReturn:
    """Ends the program with one line, or with the stack trace where it is asked for or deserved."""
    line, status = explain(
        error, name=f"scripts/{NAME}", configs=CONFIGS, primary="evaluate", arguments=[]
    ) or (None, 1)
    line = _unknown_key(error) or _missing_key(error) or line
    if line is None and isinstance(error, OSError) and error.filename:
        line = f"{error.filename}: {error.strerror}"
    if isinstance(error, KeyboardInterrupt):
        line = "stopped; the same command goes on from here"
    if isinstance(error, torch.OutOfMemoryError):
        line = "out of memory: give a smaller batch_size"
    if TRACE or line is None:
        traceback.print_exception(error)
    elif line:
        print(f"{NAME}: {line.replace('train.py', 'scripts/evaluate.py')}", file=sys.stderr)
    sys.stdout.flush()
    sys.exit(status)


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="evaluate")
def run(cfg: DictConfig) -> None:
    """Runs the composed configuration."""
    chosen, given = HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task
    try:
        config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        if chosen.get("data") == "folder" and not any("data.size=" in one for one in given):
            config["data"]["size"] = None  # what the method reads, and not what is trained on
        rows = evaluate(config, data=str(chosen.get("data")))
        first = os.environ.get("RANK", "0") == "0"
        status = report(rows, config["results"]) if first else 0
    except (Exception, KeyboardInterrupt) as error:
        fail(error)
    if not first:
        # As of train.py: gloo's threads sometimes abort the exit of the interpreter.
        sys.stdout.flush()
        os._exit(0)
    if status:
        sys.exit(status)


def main() -> None:
    """Runs the command."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its own errors, for `fail`
    sys.argv[1:] = _rewritten(sys.argv[1:])
    try:
        run()
    except Exception as error:
        fail(error)


if __name__ == "__main__":
    keep_freed_memory()
    main()
