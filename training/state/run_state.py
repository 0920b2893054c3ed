"""The run folder.

    config.yaml                       the resolved configuration
    environment.json                  commit, versions, device
    checkpoints/STAGE/last.pt         everything that resuming needs
    checkpoints/STAGE/previous.pt     the one before, should last.pt be damaged
    checkpoints/STAGE/best.pt         the weights of the best validation
    checkpoints/STAGE/finished.json   the report of a finished stage
    .lock                             who trains in the folder

Every file is written whole or not at all: a process killed at any moment leaves the previous one.
"""

import fcntl
import json
import os
import platform
import re
import resource
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clcae.evaluation.rows import source_commit
from clcae.files import leftovers, write_text
from training import distributed
from training.errors import UsageError, UserError
from training.state.checkpoint import DamagedError, digest_of, save_checkpoint

# Keys that a run may change when it continues: they do not change what it computes.
FREE_KEYS = {"run", "device", "paths"}
FREE_ENDINGS = {"cache", "command", "history"}  # a folder of drawn pictures; words of a card
FREE_TRAINER_KEYS = {
    *("log_every", "sample_every", "save_every", "keep_last"),
    *("suffix", "threads", "progress", "debug"),
}

MOST_NAMED = 8  # keys of another configuration in a message
LARGEST_CONFIG = 1 << 18  # bytes of config.yaml
# What yaml and omegaconf raise at a text that is no configuration.
_UNREADABLE = (
    *(AssertionError, RecursionError, TypeError, ValueError),
    *(yaml.YAMLError, OmegaConfBaseException),
)
_EXPORT = re.compile(r"\.tmp[0-9A-Za-z]{6}")  # that safetensors has not finished
DEEPEST_CONFIG = 50  # nodes within nodes
# Classes and functions that were called otherwise in run folders of the layout with `parts`.
FORMER_TARGETS = {
    "clcae.pretrained.assets.portraits_generator": {
        "_target_": "clcae.load_generator",
        "source": "portraits",
    },
    "training.tasks.inversion_report.InversionReport": {
        "_target_": "training.report.InversionReport"
    },
}


class RunState:
    """A run folder, which need not exist yet."""

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder

    def prepare(self, config: DictConfig, environment: Mapping[str, Any]) -> None:
        """Creates the folder, or checks that it holds a run of this configuration.

        A folder without a checkpoint, as of a run that failed at once, starts anew. `environment`
        is that of `describe`.

        Raises:
            UsageError: if the folder holds a run of another configuration.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        exports = [file for file in self.folder.rglob(".tmp*") if _EXPORT.fullmatch(file.name)]
        for leftover in [*leftovers(self.folder), *exports]:
            if leftover.is_file():
                leftover.unlink()
        path = self.folder / "config.yaml"
        if path.exists():
            differing = differing_keys(read_config(path), config)
            if differing and not any(self.folder.glob("checkpoints/*/*.pt")):
                (self.folder / "metrics.jsonl").unlink(missing_ok=True)
            elif differing:
                more = len(differing) - MOST_NAMED
                rest = f" and {more} more" if more > 0 else ""
                raise UsageError(
                    f"{self.folder} holds a run with another configuration (differs in "
                    f"{', '.join(differing[:MOST_NAMED])}{rest}): use run=NAME for another folder, "
                    "or delete it"
                )
        write_text(path, OmegaConf.to_yaml(config, resolve=True), durable=True)
        facts = json.dumps(environment, indent=2) + "\n"
        write_text(self.folder / "environment.json", facts, durable=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder against a second process.

        Raises:
            UserError: if another process holds the lock, with its number and machine.
        """
        path, checkpoints = self.folder / ".lock", self.folder / "checkpoints"
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoints.mkdir(exist_ok=True)
        with ExitStack() as stack:
            stack.callback(_remove_empty, checkpoints)
            # The checkpoints are locked too, since the file may be deleted while it is held.
            for place, flags in ((checkpoints, os.O_RDONLY), (path, os.O_RDWR | os.O_CREAT)):
                handle = os.open(place, flags, 0o666)
                stack.callback(os.close, handle)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise UserError(
                        f"another process{_holder(path)} is training in {self.folder}: wait for "
                        "it, or use run=NAME"
                    ) from error
                except OSError:  # network file systems lock no folders
                    if place == path:
                        raise
            os.ftruncate(handle, 0)
            os.write(
                handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
            )
            yield

    def stage(self, name: str, *, keep_last: int) -> "StageState":
        """Returns the files of one stage."""
        return StageState(run_folder=self.folder, name=name, keep_last=keep_last)


class StageState:
    """The checkpoints of one stage and its mark of completion.

    `keep_last` is the number of checkpoints to keep: 1 keeps last.pt alone, more keep step_N.pt
    beside it.
    """

    def __init__(self, *, run_folder: Path, name: str, keep_last: int) -> None:
        self.run_folder = run_folder
        self.name = name
        self.keep_last = keep_last
        self.folder = run_folder / "checkpoints" / name
        self.last = self.folder / "last.pt"
        self.previous = self.folder / "previous.pt"
        self.best = self.folder / "best.pt"
        self.last_is_good = True  # so that it becomes the previous one
        self._finished = self.folder / "finished.json"

    def save_last(self, content: Mapping[str, Any]) -> None:
        """Writes last.pt, and step_N.pt if several are kept; the former one becomes previous.pt."""
        former = self._linked(self.last) if self.last_is_good and self.last.is_file() else None
        try:
            save_checkpoint(self.last, content)
            if former is not None:
                former.replace(self.previous)
        finally:
            if former is not None:
                former.unlink(missing_ok=True)
        self.last_is_good = True
        if self.keep_last > 1:
            self._linked(self.last).replace(self.folder / f"step_{content['step']:08d}.pt")
            for old in self._numbered()[self.keep_last :]:
                old.unlink()

    def resumable(self) -> list[Path]:
        """Lists the checkpoints that the stage may continue from, the best first."""
        files = [self.last, self.previous, *self._numbered()]
        return [file for file in files if file.exists()]

    def _numbered(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.pt"), reverse=True)

    def _linked(self, path: Path) -> Path:
        """Links a file to a temporary name; copies it where the file system has no links."""
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            os.link(path, partial)
        except OSError:
            shutil.copyfile(path, partial)
        return partial

    def save_best(self, content: Mapping[str, Any]) -> None:
        """Writes best.pt."""
        save_checkpoint(self.best, content)

    def finished(self) -> dict[str, Any] | None:
        """Returns the record of `finish`, or None while the stage is not done.

        Raises:
            DamagedError: if the file is damaged.
        """
        if not self._finished.exists():
            return None
        try:
            record = json.loads(self._finished.read_text(encoding="utf-8"))
            digest = record.pop("digest", None)  # former versions wrote none
            good = digest in (None, digest_of(record)) and set(record) == {"weights", "report"}
            good = good and record["weights"] in (self.last.name, self.best.name)
            good = good and isinstance(record["report"], dict)
        except (ValueError, RecursionError, AttributeError, TypeError):
            good = False
        if not good:
            raise DamagedError(f"{self._finished} is damaged, or no training wrote it")
        return dict(record)

    def finish(self, *, weights: Path, report: Mapping[str, Any]) -> None:
        """Marks the stage as done.

        Args:
            weights: checkpoint whose weights later stages use.
            report: report of the task, as JSON.
        """
        record = {"weights": weights.name, "report": report}
        record = json.loads(json.dumps(record, default=float))
        text = json.dumps({**record, "digest": digest_of(record)}, indent=2) + "\n"
        write_text(self._finished, text, durable=True)


def read_config(path: Path) -> dict[str, Any]:
    """Reads config.yaml of a run folder.

    Raises:
        UserError: if it is no configuration that a training wrote.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST_CONFIG + 1)
        if len(text) > LARGEST_CONFIG:
            raise ValueError("too large")
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            # Aliases of aliases would grow without bound; none is ever written.
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST_CONFIG:
                raise ValueError("aliases, or too deep")
        config: Any = OmegaConf.to_container(OmegaConf.create(text))
        if not isinstance(config, dict):
            raise ValueError("no mapping")
    except _UNREADABLE as error:
        raise UserError(
            f"{path} is damaged, or no training wrote it: use run=NAME for another folder, or "
            f"delete {path.parent}"
        ) from error
    return config


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it is not empty
        folder.rmdir()


def _holder(path: Path) -> str:
    """Returns who holds a lock, in words, as far as its file says so."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8")[:1000])
        return f" (pid {int(holder['pid'])} on {str(holder['host'])[:100]!a})"
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def differing_keys(old: Any, new: DictConfig) -> list[str]:
    """Lists the dotted keys in which two configurations of a run differ.

    Keys that do not change what is computed are left out, and so are parts that nobody takes.
    """
    present = _without_unused_parts(OmegaConf.to_container(new, resolve=True))
    former: Any = OmegaConf.to_container(old) if OmegaConf.is_config(old) else old
    if "parts" in former:
        former = _in_present_layout(former, present)
    flat_old, flat_new = _flatten(_without_unused_parts(former)), _flatten(present)
    return [
        key
        for key in sorted({*flat_old, *flat_new})
        if not _is_free(key) and flat_old.get(key, "absent") != flat_new.get(key, "absent")
    ]


def _in_present_layout(former: Any, present: Any) -> dict[str, Any]:
    """Translates a configuration of the layout that had a section `parts`.

    There an argument that a node did not give received the part of the argument's name. Where
    `present` says `{_part_: NAME}`, the part that was received moves to root key NAME.
    """
    parts = former["parts"] if isinstance(former["parts"], dict) else {}
    result = {key: value for key, value in former.items() if key != "parts"}

    def translated(node: Any, now: Any) -> Any:
        if not isinstance(node, dict) or not isinstance(now, dict):
            return node
        injected = parts if "_target_" in node else {}
        node = {**node, **FORMER_TARGETS.get(str(node.get("_target_")), {})}
        for key, value in now.items():
            name = _part_of(value)
            if name is None and (key in node or key in injected):
                node[key] = translated(node[key] if key in node else injected[key], value)
            received = _part_of(node.get(key)) if key in node else key
            if name is not None and received in parts:
                result[name] = translated(parts[received], present.get(name))
                node[key] = value
        return node

    for key in ("stages", "report"):
        result[key] = translated(former.get(key), present.get(key))
    return result


def _without_unused_parts(config: Any) -> dict[str, Any]:
    """Drops the parts that neither a stage nor the report takes, directly or through others."""
    taken = {"optim", "report"}
    waiting = [config.get("stages"), config.get("report")]
    while waiting:
        node = waiting.pop()
        name = _part_of(node)
        if name is not None and name not in taken:
            taken.add(name)
            waiting.append(config.get(name))
        waiting += (
            node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        )
    return {
        key: node
        for key, node in config.items()
        if key in taken or not (isinstance(node, dict) and "_target_" in node)
    }


def _part_of(node: Any) -> str | None:
    """Returns NAME of a node {_part_: NAME}."""
    name = node.get("_part_") if isinstance(node, dict) else None
    return name if isinstance(name, str) else None


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flatten(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _is_free(key: str) -> bool:
    names = key.split(".")
    if names[0] == "trainer":
        return len(names) > 1 and names[1] in FREE_TRAINER_KEYS
    if names[0] == "stages" and len(names) > 3 and names[2] == "trainer":
        return names[3] in FREE_TRAINER_KEYS
    return names[0] in FREE_KEYS or names[-1] in FREE_ENDINGS


def describe(device: torch.device) -> dict[str, Any]:
    """Collects facts that help to repeat a run: commit, command, versions, device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "commit": source_commit(),
        "command": sys.argv,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "device_name": name,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }


def peak_memory(device: torch.device) -> str:
    """Returns the peak memory of this process, in words."""
    unit = 1 if sys.platform == "darwin" else 1024
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"
    if device.type == "cuda":
        text += f", {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB of the GPU"
    return text
