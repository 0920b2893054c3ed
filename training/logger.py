"""Logs a run: metrics.jsonl, TensorBoard, sample pictures, and progress on the screen."""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from clcae.files import write_text
from clcae.images import to_uint8, write_png

PLAIN_SECONDS = 10.0  # between two progress lines where the output is not a terminal


class Logger:
    """Writes the log of a run, in rank 0 alone: `enabled` is False in every other process."""

    def __init__(self, *, folder: Path, enabled: bool, progress: bool) -> None:
        self.folder = folder
        self.enabled = enabled
        self.metrics = folder / "metrics.jsonl"
        self.show_progress = progress and enabled
        self.stage = ""
        self.steps = 0
        self._first = 0
        self._started = 0.0
        self._said = 0.0
        self._bar: tqdm[Any] | None = None
        self._board: _Board | None = None

    def start_stage(self, *, stage: str, step: int, steps: int) -> None:
        """Opens the log of a stage; drops what was logged after the step that it continues from."""
        self.stage, self.steps, self._first = stage, steps, step
        self._started = time.monotonic()
        self._said = float("-inf")
        if not self.enabled:
            return
        self._forget_after(step)
        self._board = _Board(self.folder / "tensorboard" / stage, step=step + 1)
        if self.show_progress and sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, desc=stage, unit="step", dynamic_ncols=True)

    def finish_stage(self) -> None:
        """Closes the files of the stage."""
        if self._bar is not None:
            self._bar.close()
        self._bar = self._board = None

    def log(
        self,
        *,
        step: int,
        terms: Mapping[str, float],
        rates: Mapping[str, float],
        seconds: float,
    ) -> None:
        """Logs one line of training: terms, and the seconds of a step, are means since the last."""
        self._write(
            {"step": step, "terms": dict(terms), "lr": dict(rates), "seconds": round(seconds, 5)}
        )
        self._scalars(step, {**terms, **{f"lr/{name}": rate for name, rate in rates.items()}})

    def validation(self, *, step: int, values: Mapping[str, float]) -> None:
        """Logs validation values by name."""
        self._write({"step": step, "validation": dict(values)})
        self._scalars(step, {f"validation/{name}": value for name, value in values.items()})
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.line(f"{self.stage} {step}/{self.steps}  validation  {shown}")

    def picture(self, *, step: int, image: Tensor) -> None:
        """Writes a picture [3, H, W] in [-1, 1] to samples/STAGE and to TensorBoard."""
        if not self.enabled:
            return
        image = image.detach().float().cpu().nan_to_num()
        write_png(image, self.folder / "samples" / self.stage / f"{step:06d}.png")
        if self._board is not None:
            self._board.picture(step, image)

    def progress(self, *, step: int, terms: Mapping[str, float]) -> None:
        """Shows progress and losses: a bar on a terminal, elsewhere a line every ten seconds."""
        if not self.show_progress:
            return
        losses = {name: value for name, value in terms.items() if name.endswith("loss")}
        shown = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._said >= PLAIN_SECONDS or step == self.steps:
            self._said = now
            eta = (now - self._started) / max(step - self._first, 1) * (self.steps - step)
            self.line(
                f"{self.stage} {step}/{self.steps}  {shown}  eta {timedelta(seconds=round(eta))}"
            )

    def line(self, text: str) -> None:
        """Prints one line for the user."""
        if self.enabled:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def flush(self) -> None:
        """Synchronises the log with the disk, so that no checkpoint is ahead of it."""
        if self.enabled and self.metrics.exists():
            with self.metrics.open("rb") as file:
                os.fsync(file.fileno())

    def _write(self, record: Mapping[str, Any]) -> None:
        if self.enabled:
            try:
                with self.metrics.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"stage": self.stage, **record}) + "\n")
            except OSError as error:
                error.filename = str(self.metrics)
                raise

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            self._board.scalars(step, values)

    def _forget_after(self, step: int) -> None:
        """Drops lines of this stage after a step, and a line that was cut off."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if (
                not isinstance(record, dict)
                or record.get("stage") != self.stage
                or (isinstance(record.get("step"), int) and record["step"] <= step)
            ):
                kept.append(line + "\n")
        write_text(self.metrics, "".join(kept), durable=True)


class _Board:
    """Appends to an event file of TensorBoard.

    Unlike SummaryWriter it has no thread, in which a full disk would end in a traceback.

    Args:
        folder: folder of the event files.
        step: what former files hold from this step on is not shown.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        # Slow to import, and of use in rank 0 alone.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._writer = Event, RecordWriter
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        self.path = folder / f"{name}.{os.getpid()}.{step}"
        self._append(step, file_version="brain.Event:2")
        self._append(step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers by name."""
        from torch.utils.tensorboard.summary import scalar

        for name, value in values.items():
            self._append(step, summary=scalar(name, value))

    def picture(self, step: int, image: Tensor) -> None:
        """Adds a picture [3, H, W] in [-1, 1]."""
        from torch.utils.tensorboard import summary

        self._append(step, summary=summary.image("samples", to_uint8(image), dataformats="CHW"))

    def _append(self, step: int, **content: Any) -> None:
        event = self._event(wall_time=time.time(), step=step, **content)
        try:
            with self.path.open("ab") as file:
                self._writer(file).write(event.SerializeToString())
        except OSError as error:
            error.filename = str(self.path)
            raise


class Means:
    """Accumulates means of named numbers; checkpoints store their state."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Adds one value per name."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Returns the mean of each name since the last call, and starts anew."""
        means = {name: self.sums[name] / self.counts[name] for name in self.sums}
        self.sums, self.counts = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
