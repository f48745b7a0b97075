"""The files of a replay: an input that is a capture, and an output that has its name only when complete."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from layer45.errors import Layer45Error
from layer45.fastpath.capture import Reader, Writer

PIPE = "-"
LINKS = "Ethernet, Linux cooked (SLL, SLL2), raw IP, or BSD loopback (NULL, LOOP)"


def size(source: str) -> int | None:
    """Bytes of a regular file; None of anything else."""
    if source == PIPE:
        return None
    status = Path(source).stat()
    return status.st_size if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turns the system's errors into one line that names the file."""
    try:
        yield
    except OSError as error:
        raise Layer45Error(f"{path}: {error.strerror or error}") from None


@contextmanager
def reading(source: str) -> Iterator[Reader]:
    """The input, open. Layer45Error: it cannot be read, is no capture, or has an unsupported link type."""
    with ExitStack() as stack:
        with _explained(source):
            descriptor = 0 if source == PIPE else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            if source != PIPE:
                stack.callback(os.close, descriptor)
        try:
            with _explained(source):
                reader = Reader(descriptor)
        except ValueError as error:
            raise Layer45Error(f"{source}: not a capture that can be read: {error}") from None
        stack.callback(reader.close)
        if not reader.supported:
            raise Layer45Error(f"{source}: link type {reader.link_name} is not supported; expected {LINKS}")
        yield reader


class Output:
    """Where the output goes: a new file that gets its name when it is complete, or an open device or pipe."""

    def __init__(self, target: str, descriptor: int, unfinished: Path | None, final: Path | None) -> None:
        self.target = target
        self.descriptor = descriptor
        self.unfinished = unfinished
        self.final = final

    def publish(self, writer: Writer) -> None:
        """Completes the file and gives it its name."""
        with _explained(self.target):
            writer.finish()
            if self.unfinished and self.final:
                self.unfinished.replace(self.final)
                self.unfinished = None

    def close(self) -> None:
        """Closes the descriptor and removes what was not published."""
        if self.target != PIPE:
            os.close(self.descriptor)
        if self.unfinished:
            self.unfinished.unlink(missing_ok=True)


@contextmanager
def opening(source: str, target: str) -> Iterator[Output]:
    """The output, open and empty. Layer45Error: it is the input, or cannot be written."""
    with _explained(target):
        output = _open_output(source, target)
    try:
        yield output
    finally:
        output.close()


def _open_output(source: str, target: str) -> Output:
    if target == PIPE:
        sys.stdout.flush()
        return Output(target, 1, None, None)
    final = Path(os.path.realpath(target))  # a link stays, and what it names is replaced
    if final.is_dir():
        raise Layer45Error(f"{target}: is a directory; expected a file name")
    if not final.parent.is_dir():
        raise Layer45Error(f"{target}: there is no directory {final.parent}")
    if source != PIPE and final.exists() and final.samefile(source):
        raise Layer45Error(f"{target}: is the input; expected another file for the output")
    flags = os.O_WRONLY | os.O_CLOEXEC
    if final.exists() and not final.is_file():
        return Output(target, os.open(final, flags), None, None)
    unfinished = final.with_name(f".{final.name[:200]}.{os.getpid()}.part")
    return Output(target, os.open(unfinished, flags | os.O_CREAT | os.O_EXCL, 0o666), unfinished, final)


@contextmanager
def writing(reader: Reader, output: Output, nanoseconds: bool | None = None) -> Iterator[Writer]:
    """A writer into the output with the link type of the input, and its precision unless another is given."""
    precise = reader.nanoseconds if nanoseconds is None else nanoseconds
    with _explained(output.target):
        writer = Writer(output.descriptor, reader.link_type, reader.snaplen, precise)
    try:
        with _explained(output.target):
            yield writer
    finally:
        writer.close()
