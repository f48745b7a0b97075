"""What a process is to the tagger, read from /proc: its user, group, cgroup, name and executable, as of now.

A process's number may be another's a moment later. Who must be sure holds a descriptor of the process, and
asks behind the reading whether it lives (process_sockets.py).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from layer45.rules import executables
from layer45.rules.capabilities import LOOKING, raised
from layer45.rules.errors import RulesError
from layer45.rules.executables import Executable

PROC = Path("/proc")
SOCKET = re.compile(r"socket:\[(\d+)\]", re.ASCII)
FIELD = re.compile(r"^(Tgid|State|Uid|Gid):\s+(\S+)", re.MULTILINE | re.ASCII)
GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Owner:
    """user, group: the real ones. cgroup: below the mount, no leading slash. name: of the group's leader.

    file: the executable as the kernel knows it; None for threads of the kernel. path: where it was, to show.
    """

    pid: int
    user: int
    group: int
    cgroup: str
    name: str
    path: str = ""
    file: Executable | None = None


@raised(*LOOKING)
def owner(pid: int) -> Owner:
    """Raises RulesError where there is no such process."""
    directory = PROC / str(pid)
    try:
        status = dict(FIELD.findall((directory / "status").read_text(errors="surrogateescape")))
        cgroup = (directory / "cgroup").read_text(errors="surrogateescape")
        name = (directory / "comm").read_bytes().removesuffix(b"\n").decode(errors="surrogateescape")
    except GONE:
        raise RulesError(f"there is no process {pid}") from None
    except OSError as error:
        raise RulesError(f"process {pid}: {error.strerror}") from None
    if status["State"] == "Z":
        raise RulesError(f"process {pid} has ended")
    if int(status["Tgid"]) != pid:
        raise RulesError(f"{pid} is a thread of process {status['Tgid']}; expected the process")
    file, path = executables.find(str(directory / "exe")), _executable(directory)
    return Owner(pid, int(status["Uid"]), int(status["Gid"]), _unified(cgroup), name, path, file)


def _executable(directory: Path) -> str:
    try:
        return str((directory / "exe").readlink())
    except OSError:
        return ""


def _unified(text: str) -> str:
    """The path in the cgroup v2 tree; of all hierarchies that a host mounts, it is number 0."""
    for line in text.splitlines():
        if line.startswith("0::/"):
            return line[4:]
    return ""


def pids() -> list[int]:
    """All processes there are now."""
    return sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


@raised(*LOOKING)
def sockets(pid: int) -> list[tuple[int, int]]:
    """The descriptor and inode of each socket, of whatever kind; none when the process is gone.

    Raises RulesError.
    """
    try:
        found = {int(each.name): _socket(each) for each in (PROC / str(pid) / "fd").iterdir()}
        return [(number, int(inode[1])) for number, inode in found.items() if inode]
    except GONE:
        return []
    except OSError as error:
        raise RulesError(f"process {pid}: its sockets cannot be listed: {error.strerror}") from None


def _socket(entry: Path) -> re.Match[str] | None:
    try:
        return SOCKET.fullmatch(str(entry.readlink()))
    except OSError:  # closed meanwhile
        return None
