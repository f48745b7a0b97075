"""`modules sign`: writes a module's content hash into its module.toml, and module.sig beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

from layer45.errors import Layer45Error
from layer45.manifest import FILE_NAME, parse_manifest
from layer45.module_content import SIGNATURE, Files, content_hash, read_files, with_hash
from layer45.module_signature import signed
from layer45.problems import Problems
from layer45.trusted_files import Distrusted, open_directory

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def sign_module(folder: Path, key: "Ed25519PrivateKey") -> str:
    """Signs all that counts in a folder, and returns its hash.

    Raises Layer45Error and ConfigError; then nothing was changed.
    """
    files = _read(folder)
    problems = Problems()
    if FILE_NAME not in files:
        raise Layer45Error(f"{folder / FILE_NAME}: no such file; a module has one")
    parse_manifest(folder / FILE_NAME, files[FILE_NAME], problems)
    problems.raise_any()
    try:
        found = content_hash(files)
        manifest = with_hash(files[FILE_NAME], found)
    except ValueError as error:
        raise Layer45Error(f"{folder / FILE_NAME}: {error}") from None
    _write(folder / FILE_NAME, manifest)
    _write(folder / SIGNATURE, signed(found, key).encode())
    return found


def _read(folder: Path) -> Files:
    try:
        with open_directory(folder) as opened:
            return read_files(opened)[0]
    except Distrusted as error:
        raise Layer45Error(str(error)) from None
    except OSError as error:
        raise Layer45Error(f"{error.filename or folder}: cannot be read: {error.strerror}") from None


def _write(file: Path, data: bytes) -> None:
    """In one step, for a daemon may read it at any time."""
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(data)
    part.chmod(0o644)
    part.replace(file)
