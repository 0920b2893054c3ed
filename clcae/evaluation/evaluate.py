"""An evaluation: one subject under one protocol, a row for each of its spaces.

A digest stands for all that decides a row's values, so that a row is not measured twice.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from clcae.data.generated import GeneratedCodes
from clcae.data.threads import read_batches
from clcae.data.transforms import resize
from clcae.evaluation.catalogue import CATALOGUE
from clcae.evaluation.labels import Label, label_of
from clcae.evaluation.networks import Networks
from clcae.evaluation.observer import EditMoves, GeneratedObserver, MethodObserver
from clcae.evaluation.protocol import EditSpec, Protocol, build_measures
from clcae.evaluation.rows import Row, append_rows, read_rows, source_commit
from clcae.evaluation.sharded import EvaluationPass, Processes
from clcae.evaluation.states import remove_finished
from clcae.evaluation.subject import PairedFolders, Subject
from clcae.evaluation.tally import Observations
from clcae.evaluation.true_edits import TrueEditGroups, TrueEditObserver
from clcae.methods.interface import InversionMethod
from clcae.metrics.cost import count_operations, count_parameters, time_per_image, timing_words
from clcae.precision import resolve
from clcae.weight_file import weights_digest

# Returns the moves of an edit; ValueError or OSError if it cannot be made.
Moves = Callable[[EditSpec], EditMoves]


class Evaluation:
    """Measures a subject under a protocol.

    One process asks for `finished` rows; all call `measure` for the spaces that have none.

    Args:
        subject: the method, or the pair of folders.
        protocol: what is measured, and how.
        moves: gives the edits of the protocol.
        settings: what besides decides values, in terms that JSON holds.
        extra: for every row.
        precision: in which the method computes; float32 is as it is, anything else takes its form
            for inference. Judges compute in float32.
        results: file of the rows.
        save: folder for the reconstructions; None keeps none.
        again: append rows even if the results have them.
    """

    def __init__(
        self,
        *,
        subject: Subject,
        protocol: Protocol,
        networks: Networks,
        moves: Moves,
        settings: Mapping[str, Any],
        extra: Mapping[str, Any],
        results: Path,
        save: Path | None,
        precision: str = "float32",
        again: bool = False,
    ) -> None:
        self.subject, self.protocol, self.extra = subject, protocol, extra
        self.results, self.save, self.device = results, save, networks.device
        self.again, self._network = again, networks.get
        files = _file_digests(protocol)
        self.precision, self._precision_line = resolve(precision, self.device)
        self._method = subject.method
        if subject.method is not None and self.precision != "float32":
            self._method = subject.method.for_inference(self.precision)
        self.edits: dict[str, EditMoves] = {}
        labels: dict[str, Label] = {}
        without: dict[str, str] = {}  # edit -> why it cannot be made
        for name, spec in protocol.edits.items():
            try:
                if subject.method is None:
                    raise ValueError("files of pictures cannot be edited")
                if spec.amount is not None and not self._has_true_edits:
                    raise ValueError("it is of true edits: data=portraits_true_edits")
                edit = moves(spec)
                if not self._is_judged(name):
                    self.edits[name] = edit
                    continue
                labels[name] = label_of(
                    attribute=spec.attribute,
                    strength=spec.strength or 0.0,
                    threshold=spec.threshold,
                    annotations=protocol.labels,
                    names=[subject.source.name(index) for index in range(len(subject.source))],
                    network=networks.get,
                )
                self.edits[name] = edit
            except (ValueError, OSError) as error:
                without[name] = " ".join(str(error).split())
        self.measures, self.missing = build_measures(
            protocol, networks.get, labels=labels, without=without
        )
        for column in protocol.measures:
            pairs, reason = CATALOGUE[column.measure].pairs, ""
            if pairs == "again" and subject.method is None:
                reason = "files of pictures cannot be inverted again"
            if pairs == "response" and not self._is_generated:
                reason = "it is of generated codes: data=generated"
            if pairs == "true" and not self._has_true_edits:
                reason = "it is of true edits: data=portraits_true_edits"
            if pairs != "true" and self._has_true_edits:
                raise ValueError(f"{column.name} is not of true edits: protocol=true_edits")
            if reason and column.name in self.measures:
                del self.measures[column.name]
                self.missing[column.name] = reason
        if not self.measures and protocol.timed_batch is None:
            reasons = "; ".join(dict.fromkeys(self.missing.values()))
            raise ValueError(f"nothing of this protocol can be measured: {reasons}")
        judges = {name: network.module for name, network in networks.loaded.items()}
        self.weights: dict[str, str | None] = {"method": None}  # sha256; None: a missing network
        for name, module in {"method": subject.method, **judges}.items():
            if module is not None:
                self.weights[name] = weights_digest(module)
        self.weights |= {**dict.fromkeys(networks.missing), **files}
        facts = {
            "weights": self.weights,
            "pictures": subject.digest(),
            "size": subject.size,
            "name": subject.name,
            "batch_size": subject.batch_size,
            "device": self.device.type,
        }
        if self.precision != "float32":  # the digests of earlier versions are those of float32
            facts["precision"] = self.precision
        self.digest = _sha256({**settings, **facts})

    @property
    def _is_generated(self) -> bool:
        return isinstance(self.subject.source, GeneratedCodes)

    @property
    def _has_true_edits(self) -> bool:
        return isinstance(self.subject.source, TrueEditGroups)

    def _is_judged(self, edit: str) -> bool:
        """Returns whether a measure asks who has the attribute of an edit."""
        if self.protocol.edits[edit].amount is not None:
            return False  # its label is known
        kinds = [CATALOGUE[spec.measure] for spec in self.protocol.measures if spec.edit == edit]
        return any(kind.labelled or kind.asks == "attributes" for kind in kinds)

    def notices(self) -> list[str]:
        """Lists what was chosen of the precision, and why metrics are missing, with the metrics."""
        each = {spec.name for spec in self.protocol.measures if spec.asked and spec.edit}
        lines = [] if self._precision_line is None else [self._precision_line]
        for reason in dict.fromkeys(self.missing.values()):
            names = [name for name, why in self.missing.items() if why == reason]
            named = ", ".join([name for name in names if name not in each] or names)
            lines.append(f"without {named}: {reason}")
        return lines

    def finished(self) -> dict[str, Row]:
        """Reads the latest row of each space of this evaluation. Raises ValueError if damaged."""
        if not self.results.exists() or not self.results.stat().st_size:
            return {}
        rows = read_rows(self.results)
        return {row.space: row for row in rows if row.extra.get("digest") == self.digest}

    def clean(self, done: Collection[str]) -> None:
        """Removes the states of finished passes, whose processes were killed before they could.

        Args:
            done: spaces that have their rows.
        """
        spaces = [space for space in self.subject.spaces if space in done]
        for count in range(1, len(spaces) + 1):
            for measured in combinations(spaces, count):
                remove_finished(self._folder(measured))

    def measure(
        self,
        spaces: Sequence[str],
        *,
        processes: Processes,
        num_parts: int,
        save_every: int,
    ) -> dict[str, Row]:
        """Measures these spaces and appends their rows to the results; returns the rows by space.

        Every process calls it and does its share. What another evaluation measures meanwhile is
        waited for, and not measured again. The other arguments are as of `EvaluationPass`.
        """
        folder, observe = self._folder(spaces), self._observer(spaces)
        work = EvaluationPass(
            source=self.subject.source,
            observe=observe,
            measures=self.measures,
            batch_size=self.subject.batch_size,
            folder=folder,
            device=self.device,
            num_parts=num_parts,
            save_every=save_every,
            pictures=self.save,
        )
        with ExitStack() as stack:

            def wait() -> dict[str, Row]:
                stack.enter_context(work.alone(waits=self._say_waiting))
                return {} if self.again else self.finished()

            done = processes.on_main(wait)
            if all(space in done for space in spaces):
                return done
            self._share(work, processes)
            processes.barrier()
            return processes.on_main(partial(self._finish, work))

    def _observer(self, spaces: Sequence[str]) -> Callable[[Tensor], Observations]:
        """Returns what makes the observations of these spaces from a batch of images."""
        if self._method is None:
            return PairedFolders.observe
        if self._has_true_edits:
            return self._true_edit_observer(self._method, spaces)
        observer = GeneratedObserver if self._is_generated else MethodObserver
        return observer(
            method=self._method,
            outputs=spaces,
            shape=self.subject.shape,
            edits=self.edits,
            streams={measure.stream for measure in self.measures.values()},
        )

    def _true_edit_observer(
        self, method: InversionMethod, spaces: Sequence[str]
    ) -> TrueEditObserver:
        edits = {n: spec for n, spec in self.protocol.edits.items() if spec.amount is not None}
        kept = [spec for spec in self.protocol.measures if spec.name in self.measures]
        if not kept:
            raise ValueError(next(iter(self.missing.values())))
        return TrueEditObserver(
            method=method,
            outputs=spaces,
            shape=self.subject.shape,
            edits=self.edits,
            attributes={name: spec.attribute for name, spec in edits.items()},
            amounts={name: spec.amount or 0.0 for name, spec in edits.items()},
            network=self._network(str(kept[0].network)),
            asked={spec.asked for spec in kept if spec.asked},
        )

    def _folder(self, spaces: Sequence[str]) -> Path:
        """Returns the folder of unfinished parts."""
        own = _sha256({"digest": self.digest, "spaces": list(spaces), "save": str(self.save)})
        return self.results.with_name(f"{self.results.name}.unfinished") / own[:16]

    def _say_waiting(self) -> None:
        print(f"another process measures this into {self.results}: waiting for it", file=sys.stderr)

    def _share(self, work: EvaluationPass, processes: Processes) -> None:
        """Does the share of this process, with a bar for all processes in the main one."""
        quiet = None if processes.is_main() else True  # None: by the terminal
        total, num_processes = len(self.subject.source), processes.world_size()
        with tqdm(total=total, unit="image", disable=quiet) as bar:
            work.run(
                rank=processes.rank(),
                world_size=num_processes,
                progress=lambda count: bar.update(count * num_processes),
            )

    def _finish(self, done: EvaluationPass) -> dict[str, Row]:
        whole = done.merged()
        rows = whole.tally.rows(
            method=self.subject.name,
            num_images=whole.num_images,
            source=self.subject.files,
            extra={
                "left_out": whole.left_out,
                "commit": source_commit(),
                "num_threads": torch.get_num_threads(),
                "digest": self.digest,
                "weights": self.weights,
                **({} if self._method is None else {"precision": self.precision}),
                **self.extra,
            },
        )
        if self.protocol.timed_batch is not None:
            rows = self._with_costs(rows, batch=self.protocol.timed_batch)
        rows = {space: self._with_missing(row) for space, row in rows.items()}
        if self.precision != "float32":  # which a protocol does not say
            rows = {
                space: _with_words(row, precision=self.precision) for space, row in rows.items()
            }
        append_rows(
            list(rows.values()),
            self.results,
            unless=lambda row: not self.again and row.extra.get("digest") == self.digest,
        )
        done.states.clear()
        return rows

    def _with_costs(self, rows: Mapping[str, Row], *, batch: int) -> dict[str, Row]:
        """Adds what an image costs to the rows: time, operations, parameters.

        Nothing is added where files are compared, or pictures are generated.

        Milliseconds are those of a batch divided by its images, operations those of one image.
        """
        subject, method, fast = self.subject, self.subject.method, self._method
        starts = range(0, len(subject.source), batch)
        batches = [range(start, min(start + batch, len(subject.source))) for start in starts]
        if method is None or fast is None or self._is_generated or self._has_true_edits:
            return dict(rows)
        read = (images for _, images, _ in read_batches(subject.source, batches))
        images = next(images for images in read if images is not None)
        inputs = resize(images.to(self.device), subject.shape, filter_name="bilinear")
        words = {
            "ms": timing_words(self.device, batch=len(inputs)),
            "GFLOP": {"direction": "lower", "counted": "a multiplication with its addition as 2"},
            "M parameters": {"direction": "lower", "counted": "all, the generator's included"},
        }
        timed = {}
        for space, row in rows.items():
            reconstruct = partial(method.reconstruct, output=space)
            operations = count_operations(reconstruct, inputs[:1])
            with torch.inference_mode():
                milliseconds = time_per_image(partial(fast.reconstruct, output=space), inputs)
            costs = {
                "ms": milliseconds,
                "GFLOP": operations / 1e9,
                "M parameters": count_parameters(method) / 1e6,
            }
            timed[space] = replace(
                row, metrics={**row.metrics, **costs}, protocol={**row.protocol, **words}
            )
        return timed

    def _with_missing(self, row: Row) -> Row:
        """Orders the metrics of a row; those that could not be taken are NaN, with the reason."""
        missing = dict.fromkeys([spec.name for spec in self.protocol.measures], math.nan)
        values = {**missing, **row.metrics}
        if not self.missing:
            return replace(row, metrics=values)
        reasons = {**row.extra.get("without_value", {}), **self.missing}
        return replace(row, metrics=values, extra={**row.extra, "without_value": reasons})


def _with_words(row: Row, **words: str) -> Row:
    """Adds words to the protocol of every metric."""
    return replace(row, protocol={name: {**said, **words} for name, said in row.protocol.items()})


def _file_digests(protocol: Protocol) -> dict[str, str]:
    """Returns sha256 of the files of directions and labels."""
    named = [*protocol.directions, *([protocol.labels] if protocol.labels else [])]
    return {
        file: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for file in named
        if Path(file).is_file()
    }


def _sha256(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
