"""What a module is made of: all files of its folder that count, read once, and the hash over them.

The hash, `content_hash` in [module] of module.toml, is "sha256:" and the SHA-256, in hexadecimal, of

    "layer45 module content 1" 0x00
    for each file, by the bytes of its name:  length of its name, its name, length of its content, its content

Names are relative to the folder, with / between steps; lengths have 8 bytes, the highest first. module.toml
counts without the line that says content_hash. What does not count is never loaded: names that begin with a
dot, __pycache__, module.sig, and C code that Cython made (x.c beside x.pyx).
"""

import os
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256

from layer45.toml_lines import key_lines
from layer45.trusted_files import Directory, Distrusted

MANIFEST = "module.toml"
SIGNATURE = "module.sig"
MOST_FILES = 1000
MOST_BYTES = 64 << 20  # all of them together
DEEPEST = 8
PREFIX = b"layer45 module content 1\0"
HASH_LINE = re.compile(rb'[ \t]*content_hash[ \t]*=[ \t]*"sha256:[0-9a-f]{64}"[ \t\r]*')

Files = Mapping[str, bytes]


def read_files(folder: Directory) -> tuple[dict[str, bytes], bytes | None]:
    """All that counts, and module.sig if it is there. Raises Distrusted and OSError."""
    files: dict[str, bytes] = {}
    room = MOST_BYTES
    for name, data in _walk(folder, "", MOST_BYTES):
        files[name] = data
        room -= len(data)
        if room < 0 or len(files) > MOST_FILES:
            most = f"{MOST_FILES} files and {MOST_BYTES >> 20} MiB"
            raise Distrusted(folder.path, f"holds too much for a module; expected at most {most}")
    signature = files.pop(SIGNATURE, None)
    return {name: data for name, data in files.items() if not _is_generated(name, files)}, signature


def _walk(folder: Directory, prefix: str, most_bytes: int, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    if depth > DEEPEST:
        raise Distrusted(folder.path, f"lies too deep; expected at most {DEEPEST} folders in each other")
    for name in folder.names():
        if name.startswith(".") or name == "__pycache__":
            continue
        if folder.is_directory(name):
            with folder.inside(name) as inner:
                yield from _walk(inner, f"{prefix}{name}/", most_bytes, depth + 1)
        else:
            yield prefix + name, folder.read(name, most_bytes)


def _is_generated(name: str, files: Files) -> bool:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 (names may be no text)
    return suffix == ".c" and f"{stem}.pyx" in files


def content_hash(files: Files) -> str:
    """The hash over a module's files. Raises ValueError: module.toml says its hash in an unusual way."""
    whole = sha256(PREFIX)
    for name, data in sorted((os.fsencode(name), data) for name, data in files.items()):
        counted = without_hash(data) if name == os.fsencode(MANIFEST) else data
        for part in (name, counted):
            whole.update(len(part).to_bytes(8))
            whole.update(part)
    return f"sha256:{whole.hexdigest()}"


def without_hash(manifest: bytes) -> bytes:
    """module.toml without the line of its content_hash; it must be valid TOML. ValueError as content_hash."""
    lines = manifest.split(b"\n")
    number = hash_line(manifest)
    if number:
        if not HASH_LINE.fullmatch(lines[number - 1]):
            raise ValueError('expected content_hash = "sha256:…" on a line of its own')
        del lines[number - 1]
    return b"\n".join(lines)


def with_hash(manifest: bytes, value: str) -> bytes:
    """module.toml, which must be valid TOML, with another content_hash. Raises ValueError as content_hash."""
    bare = without_hash(manifest)
    lines, head = bare.split(b"\n"), _lines(bare).get(("module",), 0)
    if not head or lines[head - 1].split(b"#")[0].strip() != b"[module]":
        raise ValueError("expected a line [module]")
    at = hash_line(manifest) - 1 if hash_line(manifest) else head
    lines.insert(at, f'content_hash = "{value}"'.encode())
    return b"\n".join(lines)


def hash_line(manifest: bytes) -> int:
    """The line, from 1, that says content_hash in [module]; 0: none."""
    return _lines(manifest).get(("module", "content_hash"), 0)


def _lines(manifest: bytes) -> Mapping[tuple[str | int, ...], int]:
    return key_lines(manifest.decode().replace("\r\n", "\n"))
