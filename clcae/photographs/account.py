"""The account of a command over many files: what became of each."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from clcae.quoting import one_line

ANOTHER_PICTURE = "another file has their name now"
NO_RECORD = "it is not recorded what they were made of"
OTHER_SETTINGS = "they were made with other settings"
MOST_NAMED = 5


@dataclass
class Account:
    """Collects what became of each file of a command."""

    done: list[str] = field(default_factory=list)  # names
    kept: list[str] = field(default_factory=list)  # names finished by an earlier run
    anew: dict[str, list[str]] = field(default_factory=dict)  # reason -> names of earlier results
    skipped: list[tuple[Path, str]] = field(default_factory=list)  # file and reason

    def do_anew(self, name: str, reason: str) -> None:
        """Records an earlier result that does not count, with the reason."""
        self.anew.setdefault(reason, []).append(name)

    def skip(self, path: Path, reason: object) -> None:
        """Records a skipped file with its reason in one line, without the path."""
        text = str(reason) or type(reason).__name__
        self.skipped.append((path, text.removeprefix(f"{path}: ")))

    def announce(self) -> None:
        """Prints which earlier results are made anew, and why."""
        for reason, names in self.anew.items():
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            listed = ", ".join(map(one_line, names[:MOST_NAMED]))
            print(f"{len(names)} earlier results are made anew, since {reason}: {listed}{more}")

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
        lines = [", ".join(counts)]
        lines += [f"  {one_line(f'{path}: {reason}')}" for path, reason in self.skipped]
        print("\n".join(lines), file=sys.stderr if self.skipped else sys.stdout)
        return 1 if self.skipped else 0
