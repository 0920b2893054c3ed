"""One pass of a method over many files: reading and writing in threads while the method computes.

What `scripts/invert.py` and `scripts/edit.py` share. A pass that was stopped goes on where it was:
every result appears complete or not at all, and the folder says with what settings it is made.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from clcae.data.pictures import Item
from clcae.data.threads import BackgroundWriter, batched, in_order
from clcae.faces import Which, mtcnn_detector
from clcae.files import replacing
from clcae.methods.interface import InversionMethod
from clcae.methods.inversion_file import Maker, weights_digest
from clcae.photographs.account import Account, read_ahead
from clcae.photographs.cutouts import Photograph, read_faces, read_middle
from clcae.pretrained.doors import SHIPPED, load_method
from clcae.stylegan2.compilation import compiled

FAST = 1  # zlib level of pictures; the usual one takes longer than the model
THREADS = max(min(os.cpu_count() or 1, 8), 2)

Given = TypeVar("Given")
Result = TypeVar("Result")
Batch = list[tuple[Item, Given]]


def pass_over(
    items: Sequence[Item],
    *,
    read: Callable[[Path], Given],
    compute: Callable[[list[Given]], Sequence[Result]],
    write: Callable[[Item, Given, Result], None],
    account: Account,
    batch_size: int,
    device: torch.device,
    ahead: int = 32,
) -> None:
    """Reads, computes and writes, all three at once, and prints the rate.

    On a CPU batches are computed two at a time with half of the threads each, which takes less time
    than one after the other with all of them, and twice the memory.

    Args:
        items: The files.
        read: Of a file, in a thread; its ValueError or OSError skips the file.
        compute: Of a batch, a result for each; in inference mode, in a thread.
        write: Of a result, in a thread; its ValueError or OSError skips the file.
        account: What became of the files.
        batch_size: Files at once.
        device: Where `compute` computes.
        ahead: Files read, and results not yet written, beyond the batch; bounds the memory.
    """
    start = time.perf_counter()
    given = read_ahead(items, read, account, threads=min(THREADS, 4), ahead=ahead)
    with (
        tqdm(total=len(items), unit="image", disable=None) as bar,
        BackgroundWriter(threads=THREADS, pending=ahead) as writer,
    ):

        def settle(item: Item, written: "Future[object]") -> None:
            try:
                written.result()
                account.done.append(item.name)
            except (ValueError, OSError) as error:
                account.skip(item.path, error)
            bar.update()

        batches = batched(given, batch_size)
        for batch, results in _computed(batches, compute, lanes=2 if device.type == "cpu" else 1):
            for (item, entry), result in zip(batch, results, strict=True):
                writer.add(partial(write, item, entry, result), partial(settle, item))
    count, seconds = len(account.done), time.perf_counter() - start
    if count:
        print(f"{count} images in {seconds:.1f} s ({count / seconds:.1f} images/s)")


def reading(
    method: InversionMethod,
    *,
    align: bool,
    faces: Which,
    device: torch.device,
) -> Callable[[Path], Photograph]:
    """How picture files are read: their middle, or with `align` the faces that are meant.

    Raises:
        ValueError: Faces are asked for without `align`; the method reads no squares, which faces
            are; no detector is installed.
    """
    height, width = method.image_shape
    if not align:
        if faces != "largest":
            raise ValueError("--faces is for --align")
        return partial(read_middle, shape=(height, width))
    if height != width:
        raise ValueError(f"--align makes squares, this method reads {height} x {width} pixels")
    detector = mtcnn_detector(device=device)
    return partial(read_faces, shape=(height, width), detector=detector, which=faces)


def regrouped(results: Iterable[Result], counts: Sequence[int]) -> list[list[Result]]:
    """Consecutive results in lists of so many."""
    rest = iter(results)
    return [list(islice(rest, count)) for count in counts]


def check_names(items: Sequence[Item], endings: Sequence[str]) -> None:
    """Whether the further results of one file would be taken for those of another.

    Args:
        items: The files.
        endings: Patterns of what is added to a name after "-", such as "strip".

    Raises:
        ValueError: Two files have such names.
    """
    names = {item.name.casefold() for item in items}
    for item in items:
        for ending in endings:
            match = re.fullmatch(f"(.+)-{ending}", item.name.casefold())
            if match and match[1] in names:
                raise ValueError(
                    f"{item.path}: its results would be mixed with those of {match[1]!r}: rename it"
                )


def claim(path: Path, settings: Mapping[str, Any], *, again: bool) -> None:
    """Writes down with what settings a folder is made, or checks that they are these.

    Args:
        path: The file of the settings, hidden in the folder of the results.
        settings: Anything JSON can hold.
        again: All results are made again, so that what was there does not matter.

    Raises:
        ValueError: The folder holds results of other settings, which are named.
    """
    wanted = json.loads(json.dumps(settings))
    if path.is_file() and not again:
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = None
        found = found if isinstance(found, dict) else {}
        if found == wanted:
            return
        other = [key for key in wanted if found.get(key) != wanted[key]]
        raise ValueError(
            f"{path.parent} holds results of other settings ({', '.join(other)}): give another "
            "--out, or --overwrite to make them again"
        )
    with replacing(path) as partial:
        partial.write_text(json.dumps(wanted, indent=2) + "\n")


def open_method(
    source: str,
    *,
    output: str | None,
    device: torch.device,
    compile: bool = False,
) -> tuple[InversionMethod, Maker]:
    """A method on a device, set to an output, made fast, and what inversion files call it.

    Args:
        source: A file, or a shipped name such as portraits/clcae.
        output: "W", "W+" or "F"; None is the method's own choice.
        device: Where it computes.
        compile: Have torch.compile join the elementwise parts of the generator.

    Raises:
        FileNotFoundError: There is no such file or name.
        ValueError: It holds no method, or none with this output.
    """
    method = load_method(source)
    if output is not None:
        method = method.with_output(output)
    shipped = source.startswith(SHIPPED) and not Path(source).exists()
    maker = Maker(
        source=source if shipped else Path(source).name,
        class_name=type(method).__name__,
        sha256=weights_digest(method),
        output=method.output,
    )
    method = method.to(device).for_inference()
    return (compiled(method) if compile else method), maker


def reported(name: str, work: Callable[[], Account]) -> int:
    """Runs a command's work and says in lines on stderr what failed.

    Returns:
        The exit status: 0, 1 where something failed, 130 where it was interrupted.
    """
    try:
        account = work()
    except torch.OutOfMemoryError:
        print(f"{name}: out of memory: give a smaller --batch-size", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print("\n".join(account.summary()), file=sys.stderr if account.status else sys.stdout)
    return account.status


def _computed(
    batches: Iterable[Batch],
    compute: Callable[[list[Given]], Sequence[Result]],
    *,
    lanes: int,
) -> "Iterator[tuple[Batch, Sequence[Result]]]":
    """Batches with their results, in order, so many of them in the making at once."""
    whole = torch.get_num_threads()

    def result(batch: Batch) -> Sequence[Result]:
        torch.set_num_threads(max(whole // lanes, 1))  # of this thread and those it begins
        with torch.inference_mode():
            return compute([entry for _, entry in batch])

    try:
        for batch, future in in_order(batches, result, threads=lanes, ahead=lanes):
            yield batch, future.result()
    finally:
        torch.set_num_threads(whole)
