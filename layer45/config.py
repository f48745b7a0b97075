"""layer45.toml: what is one per daemon."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from layer45 import processors
from layer45.problems import Place, Problems, shown
from layer45.rules.diversion import MarkLayout
from layer45.rules.kernel_chain import NOBODYS_QUEUE
from layer45.table import read_table
from layer45.toml_file import Read, read_toml
from layer45.trusted_files import Distrusted, open_directory

FILE_NAME = "layer45.toml"
SOCKET_PATH_BYTES = 107  # sun_path, without its final 0
LAST_QUEUE = NOBODYS_QUEUE - 1
DEFAULT_MODULE_DIR = "/etc/layer45/modules"
DISTRIBUTION_MODULE_DIR = "/usr/lib/layer45/modules"  # packages may put modules there

Seconds = Annotated[int, Meta(ge=1, le=30 * 86400)]


@dataclass(frozen=True)
class Settings:
    """Every key of layer45.toml; the defaults stand in for those left out."""

    control_socket: str = "/run/layer45/control.sock"
    first_queue: Annotated[int, Meta(ge=0, le=LAST_QUEUE)] = 4500
    workers: Annotated[int, Meta(ge=1, le=256)] = 1  # queues, and threads, per queue group
    mark_mask: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] = (
        0x30FF  # highest bit: exempt; the others: the class
    )
    cgroup_root: str = "layer45"  # below the cgroup v2 mount, no leading slash
    backend: Literal["auto", "iptables", "nft"] = "auto"
    max_flows: Annotated[int, Meta(ge=1, le=1 << 24)] = 65536  # per worker
    udp_idle_s: Seconds = 180
    tcp_idle_s: Seconds = 7440
    max_held: Annotated[int, Meta(ge=0, le=1 << 20)] = 1024  # held and delayed packets per worker
    module_memory_mb: Annotated[int, Meta(ge=1, le=1 << 16)] = 64  # what modules may borrow, per worker
    error_threshold: Annotated[int, Meta(ge=0, le=1 << 30)] = 100  # failures in 10 s; see failures.py
    busy_poll_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # a worker looks so long before it sleeps
    coalesce_us: Annotated[int, Meta(ge=0, le=10_000)] = (
        0  # how long it lets packets come together, where many come
    )
    worker_cpus: str = ""  # processors for workers, by processors.py; empty: the scheduler's choice
    queue_length: Annotated[int, Meta(ge=1, le=1 << 20)] = 4096  # packets the kernel may keep per queue
    module_dirs: tuple[str, ...] = (DEFAULT_MODULE_DIR,)  # absolute; searched after the shipped ones
    load: tuple[str, ...] = ()  # modules that have their sockets by their own [match]; see load_list.py
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0  # 0: from the system

    @property
    def marks(self) -> MarkLayout:
        """How mark_mask is split."""
        exempt = 1 << (self.mark_mask.bit_length() - 1)
        return MarkLayout(class_mask=self.mark_mask & ~exempt, exempt_bit=exempt)


def load_settings(directory: Path) -> Settings:
    """layer45.toml alone, for commands that need no policy. Raises ConfigError. No file: all defaults."""
    problems = Problems()
    settings, _ = read_settings(directory, problems)
    problems.raise_any()
    return settings


def read_settings(directory: Path, problems: Problems) -> tuple[Settings, Place]:
    """As load_settings, but problems are collected, and wrong keys have defaults. Place: the file's top."""
    read = read_own(directory, FILE_NAME, problems)
    if read is None:
        return Settings(), Place(directory / FILE_NAME)
    table, place = read
    values = read_table(table, Settings, place, problems)
    _drop_wrong(values, place, problems)
    return Settings(**_normal(values, directory)), place


def read_own(directory: Path, name: str, problems: Problems) -> Read | None:
    """A file of the configuration directory. None: there is no such file, or there are problems."""
    try:
        with open_directory(directory) as opened:
            return read_toml(opened, directory / name, problems) if name in opened.names() else None
    except Distrusted as error:
        problems.add_file(error.path, error.reason)
    except OSError as error:
        expected = f"expected a directory with {FILE_NAME} and policies/*.toml"
        problems.add_file(directory, f"cannot be read: {error.strerror}; {expected}")
    return None


def _drop_wrong(values: dict[str, Any], place: Place, problems: Problems) -> None:
    wrong = {
        "control_socket": _socket_fault(values.get("control_socket", "/s")),
        "mark_mask": _mask_fault(values.get("mark_mask", 3)),
        "cgroup_root": cgroup_fault(values.get("cgroup_root", "layer45")),
        "worker_cpus": _processors_fault(values.get("worker_cpus", "")),
        "max_held": _held_fault(Settings(**{key: values[key] for key in HELD if key in values})),
    }
    for key, text in wrong.items():
        if text:
            problems.add(place.child(key), text)
            values.pop(key, None)


def _socket_fault(path: str) -> str:
    if path.startswith("/") and "\0" not in path and len(path.encode()) <= SOCKET_PATH_BYTES:
        return ""
    return f"expected an absolute path of at most {SOCKET_PATH_BYTES} bytes, got {shown(path)}"


def _mask_fault(mask: int) -> str:
    if mask.bit_count() >= 2:
        return ""
    return f"expected at least 2 bits (the highest exempts, the others number the classes), got {mask:#x}"


def _processors_fault(text: str) -> str:
    try:
        processors.parse(text)
    except ValueError as error:
        return str(error)
    return ""


HELD = ("max_held", "queue_length")


def _held_fault(settings: Settings) -> str:
    """Held packets wait in the kernel's queue: they must leave room for others."""
    if settings.max_held < settings.queue_length:
        return ""
    return f"expected less than queue_length ({settings.queue_length}), got {settings.max_held}"


def cgroup_fault(path: str) -> str:
    """What is wrong with a path below the cgroup mount; empty if nothing is."""
    steps = path.strip("/").split("/")
    if "\0" not in path and all(step not in ("", ".", "..") for step in steps):
        return ""
    return f"expected a path below the cgroup mount, without . and .., got {shown(path)}"


def _normal(values: dict[str, Any], directory: Path) -> dict[str, Any]:
    if "cgroup_root" in values:
        values["cgroup_root"] = values["cgroup_root"].strip("/")
    if "module_dirs" in values:
        base = directory.absolute()
        values["module_dirs"] = tuple(str(base / each) for each in values["module_dirs"])
    return values
