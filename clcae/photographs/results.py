"""Results in a folder: which are finished, what killed commands have left, who else writes there.

A result is finished if the digest of its input and of the settings is that of its record. Records
are the lines of .COMMAND.jsonl beside the results, and their files appear together with them.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from clcae.command import claim
from clcae.data.pictures import Item
from clcae.faces.folder import is_there
from clcae.files import LONGEST_NAME, leftovers, replacing, sha256
from clcae.photographs.account import ANOTHER_PICTURE, NO_RECORD, OTHER_SETTINGS, Account
from clcae.quoting import parse_json

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_SUFFIXES = (".png", ".json", ".jsonl", ".safetensors")
_ENDING = re.compile(r"(\.[0-9a-f]{8}\.partial)+$")


@dataclass(frozen=True)
class _Line:
    """Record of one input: its name, digests of it and of the settings, files made of it."""

    name: str
    input: str
    settings: str
    files: tuple[str, ...]


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Marks a folder as in use, together with other commands.

    What killed commands have left in it is removed where no other command uses it.

    Args:
        folder: made if missing; removed where nothing was written into it.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        if _locked(handle, alone=True):
            for path in leftovers(folder):
                whole = _ENDING.sub("", path.name)  # its end is cut off where the name is long
                if whole.endswith(_SUFFIXES) or len(os.fsencode(path.name)) >= LONGEST_NAME:
                    with suppress(OSError):
                        path.unlink()
        _locked(handle, alone=False)
        yield
    finally:
        if handle is not None:
            os.close(handle)
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def _locked(handle: int | None, *, alone: bool) -> bool:
    """Locks a folder, with others or alone; False where others are in it or there are no locks."""
    if handle is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except OSError:
        return False
    return True


class Results:
    """The results of one command in a folder.

    Args:
        root: the folder.
        command: name of the script, "invert" or "edit".
        settings: what decides about results beside their inputs; anything JSON can hold. A folder
            of other settings is refused.
        built: digest of what the method is built from; results of another one are made anew.
        overwrite: make all results anew.

    Raises:
        ValueError: if the folder holds results of other settings.
    """

    def __init__(
        self,
        root: Path,
        *,
        command: str,
        settings: Mapping[str, Any],
        built: str,
        overwrite: bool,
    ) -> None:
        self.root, self.command, self.overwrite = root, command, overwrite
        self.account = Account()
        claimed = root / f".{command}.json"
        self._were_ours = claimed.is_file()
        claim(claimed, settings, again=overwrite)
        text = json.dumps([settings, built], sort_keys=True)
        self._settings = hashlib.sha256(text.encode()).hexdigest()
        self._index = root / f".{command}.jsonl"
        self._lines = _read_lines(self._index)
        self._lock = threading.Lock()

    def finished(self, item: Item) -> bool:
        """Tests whether an earlier run has made all files of this very input.

        Raises:
            OSError: if the input cannot be read, or its name is too long.
            ValueError: if a file of that name is no result of the command.
        """
        if self.overwrite:
            return False
        line = self._lines.get(item.name)
        if line is None:
            names = (f"{item.name}.png", f"{item.name}-0.png")
            found = [self.root / name for name in names if is_there(self.root / name)]
            if found and not self._were_ours:
                raise ValueError(
                    f"{found[0]} is there and no result of {self.command}.py: give another --out, "
                    "or --overwrite"
                )
            if found:
                self.account.do_anew(item.name, NO_RECORD)
            return False
        if line.settings != self._settings:
            self.account.do_anew(item.name, OTHER_SETTINGS)
        elif not all((self.root / file).is_file() for file in line.files):
            return False
        elif line.input != sha256(item.path):
            self.account.do_anew(item.name, ANOTHER_PICTURE)
        else:
            return True
        return False

    @contextmanager
    def writing(self, item: Item, digest: str, files: Sequence[str]) -> Iterator[list[Path]]:
        """Yields a temporary path for each file of an input.

        Once the block has succeeded all files get their names and the record is written; then files
        are removed that an earlier input of that name had and this one has not.

        Args:
            item: the input.
            digest: sha256 of the file that was read.
            files: names of its files, below the folder.
        """
        with ExitStack() as alone:
            with ExitStack() as stack:
                yield [stack.enter_context(replacing(self.root / file)) for file in files]
                index = alone.enter_context(self._alone())
            line = _Line(item.name, digest, self._settings, tuple(files))
            text = json.dumps(asdict(line))
            index.write(f"\n{text}".encode())  # a line that was cut ends before
            earlier, self._lines[item.name] = self._lines.get(item.name), line
            stale = set(earlier.files if earlier else ()) - set(files)
            if stale:
                stale -= {file for each in self._lines.values() for file in each.files}
            for file in stale:
                (self.root / file).unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[IO[bytes]]:
        """Opens the records for one thread of one command at a time."""
        with self._lock, self._index.open("ab") as file:
            if fcntl is not None:
                with suppress(OSError):  # the disk knows no locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def _read_lines(path: Path) -> dict[str, _Line]:
    """Reads the last record of every name; damaged lines count as missing."""
    lines = {}
    try:
        texts = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    for text in texts:
        try:
            fields = parse_json(text)
            line = _Line(**{**fields, "files": tuple(fields["files"])})
            if all(isinstance(v, str) for v in (line.name, *line.files)) and all(
                _is_below(file) for file in line.files
            ):
                lines[line.name] = line
        except (ValueError, TypeError, KeyError):
            continue
    return lines


def _is_below(file: str) -> bool:
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and path.suffix in _SUFFIXES
