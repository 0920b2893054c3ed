"""What a run says: metrics.jsonl, TensorBoard, sample pictures, and the progress on the screen."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from training.files import write_text, write_whole

PLAIN_SECONDS = 10.0  # between two progress lines where the output is not a terminal


class Logger:
    """Writes the log of a run; in every process but the first it does nothing.

    Args:
        folder: the run folder.
        enabled: whether this is the process that speaks.
        progress: whether to show progress at all.
    """

    def __init__(self, *, folder: Path, enabled: bool = True, progress: bool = True) -> None:
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
        self._board: Any = None

    def start_stage(self, *, stage: str, step: int, steps: int) -> None:
        """Begins a stage, or continues it: what was logged of it after ``step`` is dropped.

        Args:
            stage: its name.
            step: steps that are done.
            steps: steps of the stage.
        """
        self.stage, self.steps, self._first = stage, steps, step
        self._started = time.monotonic()
        self._said = float("-inf")
        if not self.enabled:
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and of use here alone

        self._forget_after(step)
        board = self.folder / "tensorboard" / stage
        self._board = SummaryWriter(str(board), purge_step=step + 1)
        if self.show_progress and sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, desc=stage, unit="step", dynamic_ncols=True)

    def finish_stage(self) -> None:
        """Closes the files of the stage."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()
        self._bar = self._board = None

    def log(
        self,
        *,
        step: int,
        terms: Mapping[str, float],
        rates: Mapping[str, float],
        seconds: float,
    ) -> None:
        """Logs means of terms.

        Args:
            step: steps that are done.
            terms: name -> mean since the last line.
            rates: optimizer -> learning rate.
            seconds: of a step, on average.
        """
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
        """Writes a picture to samples/STAGE and to TensorBoard.

        Args:
            step: steps that are done.
            image: [3, H, W] in [-1, 1]; what lies outside is clipped.
        """
        if not self.enabled:
            return
        pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
        path = self.folder / "samples" / self.stage / f"{step:06d}.png"
        write_whole(
            path, lambda file: Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
        )
        self._board.add_image("samples", pixels, step)

    def progress(self, *, step: int, terms: Mapping[str, float]) -> None:
        """Shows where the run is: a bar on a terminal, elsewhere a line every ten seconds.

        Args:
            step: steps that are done.
            terms: the values of this step; the losses among them are shown.
        """
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
            self.line(f"{self.stage} {step}/{self.steps}  {shown}  eta {_clock(eta)}")

    def line(self, text: str) -> None:
        """Prints one line for the user."""
        if self.enabled:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def flush(self) -> None:
        """Puts what was logged on the disk, before a checkpoint that stands for it."""
        if self.enabled and self.metrics.exists():
            with self.metrics.open("rb") as file:
                os.fsync(file.fileno())
        if self._board is not None:
            self._board.flush()

    def _write(self, record: Mapping[str, Any]) -> None:
        if self.enabled:
            with self.metrics.open("a") as file:
                file.write(json.dumps({"stage": self.stage, **record}) + "\n")

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def _forget_after(self, step: int) -> None:
        """Drops the lines of this stage beyond ``step``, and one that was cut off."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record["stage"] != self.stage or record["step"] <= step:
                kept.append(line + "\n")
        write_text(self.metrics, "".join(kept))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"
