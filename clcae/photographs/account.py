"""The account of a command's files: done, kept, or skipped with a reason."""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from clcae.data.pictures import Item
from clcae.data.threads import in_order

Result = TypeVar("Result")


@dataclass
class Account:
    """Collects what became of each file of a command."""

    done: list[str] = field(default_factory=list)  # names
    kept: list[str] = field(default_factory=list)  # names finished by an earlier run
    skipped: list[tuple[Path, str]] = field(default_factory=list)  # file and reason

    def skip(self, path: Path, reason: object) -> None:
        """Records a skipped file with its reason in one line, without the path."""
        text = " ".join(str(reason).split())
        self.skipped.append((path, text.removeprefix(f"{path}: ")))

    def report(self) -> int:
        """Prints the counts and every skipped file with its reason.

        Returns:
            The exit status: 1 where a file was skipped, else 0.
        """
        counts = [f"{len(self.done)} done"]
        if self.kept:
            counts.append(f"{len(self.kept)} finished before (--overwrite does them again)")
        if self.skipped:
            counts.append(f"{len(self.skipped)} skipped:")
        lines = [", ".join(counts), *(f"  {path}: {reason}" for path, reason in self.skipped)]
        print("\n".join(lines), file=sys.stderr if self.skipped else sys.stdout)
        return 1 if self.skipped else 0


def read_ahead(
    items: Iterable[Item],
    read: Callable[[Path], Result],
    account: Account,
    *,
    threads: int = 2,
    ahead: int = 32,
) -> Iterator[tuple[Item, Result]]:
    """Reads files ahead in threads and yields them in order; skips those that cannot be read.

    Args:
        items: the files.
        read: called in a thread; a ValueError or OSError skips the file.
        account: lists the skipped files.
        threads: reading at once.
        ahead: files read beyond the one that is yielded; bounds the memory.
    """
    for item, future in in_order(items, lambda i: read(i.path), threads=threads, ahead=ahead):
        try:
            result = future.result()
        except (ValueError, OSError) as error:
            account.skip(item.path, error)
        else:
            yield item, result
