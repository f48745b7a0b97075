"""The bpf() system call: maps, programs, links, and names for them in a BPF file system; no library needed.

Every failure is an OSError that says what could not be done; who calls knows what that means.
"""

import ctypes
import functools
import os
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "armv7l": 386, "i686": 357}
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT, PROG_LOAD = range(6)
OBJECT_PIN, OBJECT_GET = 6, 7
LINK_CREATE, LINK_UPDATE = 28, 29
PROG_TYPE_SOCKET_FILTER, PROG_TYPE_CGROUP_SOCK = 1, 9
ATTACH_SOCK_CREATE = 2  # of programs of the latter type
MAP_TYPE_HASH, MAP_TYPE_PERCPU_ARRAY, NO_PREALLOC = 1, 6, 1
POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")


def call(command: int, attributes: bytes, what: str) -> int:
    """The system call; the descriptor or 0. Raises OSError."""
    number = SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(f"no bpf() call known for {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _c_library().syscall(number, command, buffer, len(attributes))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot {what}: {os.strerror(error)}")
    return int(result)


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def load_program(kind: int, code: bytes, name: str, attach: int = 0) -> int:
    """Its descriptor. name: at most 15 letters, digits or underscores. attach: where it is going to be."""
    text, terms = (ctypes.create_string_buffer(v) for v in (code, b"GPL"))
    head = struct.pack("=IIQQ", kind, len(code) // 8, *map(ctypes.addressof, (text, terms)))
    quiet = struct.pack("=IIQII16sII", 0, 0, 0, 0, 0, name.encode(), 0, attach)
    return call(PROG_LOAD, head + quiet, "load the BPF program")


def create_hash(key_bytes: int, value_bytes: int, capacity: int, name: str) -> int:
    """A hash map whose entries take memory as they come; its descriptor."""
    shape = (MAP_TYPE_HASH, key_bytes, value_bytes, capacity, NO_PREALLOC)
    return call(MAP_CREATE, struct.pack("=7I16s", *shape, 0, 0, name.encode()), "create the BPF map")


def create_counters(count: int, name: str) -> int:
    """A map of one entry: 64-bit counters, which every CPU has of its own; its descriptor."""
    shape = (MAP_TYPE_PERCPU_ARRAY, 4, 8 * count, 1, 0)
    return call(MAP_CREATE, struct.pack("=7I16s", *shape, 0, 0, name.encode()), "create the BPF map")


def counted(map_descriptor: int, count: int) -> list[int]:
    """The counters of such a map, over all CPUs. Raises OSError."""
    cpus = possible_cpus()
    found = lookup(map_descriptor, bytes(4), 8 * count * cpus)
    values = struct.unpack(f"={count * cpus}Q", found or bytes(8 * count * cpus))
    return [sum(values[at::count]) for at in range(count)]


@functools.cache
def possible_cpus() -> int:
    """How many CPUs this machine can ever have: the kernel tells the values of all. Raises OSError."""
    spans = (span.split("-") for span in POSSIBLE_CPUS.read_text().strip().split(","))
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


def pin(descriptor: int, path: Path) -> None:
    """Gives a map or program a name, in one step in the place of what had it."""
    fresh = path.with_name(f"{path.name}-new")
    fresh.unlink(missing_ok=True)
    name = ctypes.create_string_buffer(os.fsencode(fresh))
    call(OBJECT_PIN, struct.pack("=QII", ctypes.addressof(name), descriptor, 0), f"pin {path}")
    fresh.rename(path)


def pin_filter(path: Path, code: bytes, name: str) -> None:
    """Loads a program that rules ask of a packet, and pins it. name: as load_program has it."""
    loaded = load_program(PROG_TYPE_SOCKET_FILTER, code, name)
    try:
        pin(loaded, path)
    finally:
        os.close(loaded)


def pinned(path: Path) -> int:
    """A descriptor of what has this name."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return call(OBJECT_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0), f"open {path}")


def lookup(map_descriptor: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value of a key, or None."""
    value = ctypes.create_string_buffer(value_bytes)
    return value.raw if _on_map(MAP_LOOKUP, map_descriptor, _buffer(key), value) else None


def update(map_descriptor: int, key: bytes, value: bytes) -> None:
    """Puts an entry in, or changes its value."""
    _on_map(MAP_UPDATE, map_descriptor, _buffer(key), _buffer(value))


def delete(map_descriptor: int, key: bytes) -> None:
    """Takes an entry out; none is no error."""
    _on_map(MAP_DELETE, map_descriptor, _buffer(key), None)


def entries(map_descriptor: int, key_bytes: int, value_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values. All that stay while it runs; where others come and go, some may come twice."""
    following = ctypes.create_string_buffer(key_bytes)
    key: bytes | None = None
    while _on_map(MAP_NEXT, map_descriptor, None if key is None else _buffer(key), following):
        key = following.raw
        value = lookup(map_descriptor, key, value_bytes)
        if value is not None:
            yield key, value


Buffer = ctypes.Array[ctypes.c_char]


def _buffer(content: bytes) -> Buffer:
    return ctypes.create_string_buffer(content, len(content))


def _on_map(command: int, map_descriptor: int, key: Buffer | None, value: Buffer | None) -> bool:
    """False: there is no such key. The buffers must live until the call returns."""
    places = (0 if buffer is None else ctypes.addressof(buffer) for buffer in (key, value))
    try:
        call(command, struct.pack("=IIQQQ", map_descriptor, 0, *places, 0), "use the BPF map")
    except FileNotFoundError:
        return False
    return True
