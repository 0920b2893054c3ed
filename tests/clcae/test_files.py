"""Writing: whole or not at all, through links and into pipes, and never onto devices."""

import os
import socket
import threading
from pathlib import Path

import pytest

from clcae.files import replacing, sha256, write_text


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store/file")
    for text in ("first", "second"):  # the file is made, then replaced
        write_text(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "store/file").read_text() == text
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["file"]


def written_into(pipe: Path, text: str) -> str:
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_text(pipe, text)
    reader.join(10)
    return read[0]


def test_a_pipe_gets_the_text(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        assert written_into(tmp_path / name, "a text é\n" * 50_000) == "a text é\n" * 50_000
        assert pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_an_open_pipe_under_a_name_of_the_system() -> None:
    read, write = os.pipe()
    write_text(f"/proc/self/fd/{write}", "text")  # as /dev/stdout is
    os.close(write)
    with os.fdopen(read) as file:
        assert file.read() == "text"


def test_a_block_that_fails_writes_nothing_into_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "pipe") as partial:
        (partial / "none").read_text()  # had the pipe been opened, this would wait for a reader


def test_a_reader_that_goes_away_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def look() -> None:
        with (tmp_path / "pipe").open("rb") as file:
            file.read(1)

    reader = threading.Thread(target=look)
    reader.start()
    with pytest.raises(ValueError, match="its reader has gone"):
        write_text(tmp_path / "pipe", "x" * (1 << 20))
    reader.join(10)


def test_devices_folders_and_sockets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    before = Path("/dev/full").stat()
    for path, kind in (
        (Path("/dev/full"), "a device"),
        (tmp_path / "null", "a device"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(ValueError, match=f"is {kind}, expected"):
            write_text(path, "text")
    assert os.path.samestat(before, Path("/dev/full").stat())
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        with pytest.raises(ValueError, match="is a socket, expected"):
            write_text(tmp_path / "s", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "s"]


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a").startswith("ba7816bf")
