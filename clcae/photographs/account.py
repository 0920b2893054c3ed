"""What became of the files of a command: done, kept, or skipped with a reason."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from clcae.data.pictures import Item
from clcae.data.threads import in_order

Result = TypeVar("Result")


@dataclass
class Account:
    """What became of the items of a command."""

    done: list[str] = field(default_factory=list)  # names
    kept: list[str] = field(default_factory=list)  # names finished by an earlier run
    skipped: list[tuple[Path, str]] = field(default_factory=list)  # file and reason

    @property
    def status(self) -> int:
        """The exit status: 0, or 1 where something was skipped."""
        return 1 if self.skipped else 0

    def skip(self, path: Path, reason: object) -> None:
        """Records that a file is left out, with the reason in one line and without its path."""
        text = " ".join(str(reason).split())
        self.skipped.append((path, text.removeprefix(f"{path}: ")))

    def summary(self) -> list[str]:
        """Lines for the end of a command: a count, then every skipped file with its reason."""
        counts = [f"{len(self.done)} done"]
        if self.kept:
            counts.append(f"{len(self.kept)} finished before (--overwrite does them again)")
        if self.skipped:
            counts.append(f"{len(self.skipped)} skipped:")
        return [", ".join(counts), *(f"  {path}: {reason}" for path, reason in self.skipped)]


def read_ahead(
    items: Iterable[Item],
    read: Callable[[Path], Result],
    account: Account,
    *,
    threads: int = 2,
    ahead: int = 32,
) -> Iterator[tuple[Item, Result]]:
    """Yields items with what `read` makes of their files, in order, reading ahead in threads.

    Args:
        items: What to read.
        read: Called in a thread; its ValueError or OSError skips the item.
        account: Where skipped items are listed.
        threads: Readers at once.
        ahead: Items read beyond the one that was asked for; bounds the memory.
    """
    for item, future in in_order(items, lambda i: read(i.path), threads=threads, ahead=ahead):
        try:
            result = future.result()
        except (ValueError, OSError) as error:
            account.skip(item.path, error)
        else:
            yield item, result
