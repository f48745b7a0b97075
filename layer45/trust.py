"""trust.toml: whose signatures count, and which modules must have one.

    require = "all"                     # or "site", "none", or a list of modules' names
    [key.release]
    ed25519 = "…"                       # base64 of the 32 bytes, or PEM as openssl prints it

"all": every module but the shipped ones, which are a part of this program; "site": those of module_dirs, not
those that packages put into /usr/lib/layer45/modules. Without the file nothing must be signed; with it, and
without `require`, all. A key that is taken out of the file counts no more from the next reload on.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from layer45.config import read_own
from layer45.module_signature import KEY_BYTES, fingerprint, from_base64
from layer45.problems import Place, Problems, shown
from layer45.suggest import did_you_mean
from layer45.table import read_table, report_unknown

FILE_NAME = "trust.toml"

Required = Literal["none", "site", "all"] | tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """A public key, 32 bytes, and its name in trust.toml."""

    name: str
    public: bytes


@dataclass(frozen=True)
class Trust:
    """A validated trust.toml; by default, none. keys: by fingerprint."""

    require: Required = "none"
    keys: Mapping[str, Key] = field(default_factory=dict)
    place: Place = field(default=Place(Path(FILE_NAME)), compare=False, repr=False)

    def requires(self, module: str, site: bool) -> bool:
        """Whether a module must be signed. site: it stands in module_dirs."""
        if isinstance(self.require, tuple):
            return module in self.require
        return self.require == "all" or (self.require == "site" and site)

    def remarks(self, modules: Collection[str]) -> list[str]:
        """A line for each name that no module has: a slip there would leave a module unprotected."""
        found = Problems()
        for number, name in enumerate(self.require if isinstance(self.require, tuple) else ()):
            if name not in modules:
                hint = did_you_mean(name, modules)
                found.add(self.place.child("require", number), f'no module "{name}"{hint}')
        return found.sorted_lines()


@dataclass(frozen=True)
class _KeyTable:
    ed25519: str


def load_trust(directory: Path) -> Trust:
    """The trust.toml of a configuration directory. Raises ConfigError."""
    problems = Problems()
    trust = read_trust(directory, problems)
    problems.raise_any()
    return trust


def read_trust(directory: Path, problems: Problems) -> Trust:
    """As load_trust, but problems are collected; then nothing may be loaded."""
    read = read_own(directory, FILE_NAME, problems)
    if read is None:
        return Trust()
    top, place = read
    report_unknown(top, ("require", "key"), place, problems)
    require = _read_require(top.get("require", "all"), place.child("require"), problems)
    return Trust(require, _read_keys(top.get("key", {}), place.child("key"), problems), place)


def _read_require(value: object, place: Place, problems: Problems) -> Required:
    match value:
        case "none" | "site" | "all":
            return value
        case list() if all(isinstance(each, str) for each in value):
            return tuple(value)
    expected = 'expected "none", "site", "all" or a list of modules\' names'
    problems.add(place, f"{expected}, got {shown(value)}")
    return "all"


def _read_keys(tables: object, place: Place, problems: Problems) -> dict[str, Key]:
    if not isinstance(tables, dict):
        problems.add(place, f"expected tables [key.NAME], got {shown(tables)}")
        return {}
    keys: dict[str, Key] = {}
    for name, table in tables.items():
        key = _read_key(name, table, place.child(name), problems)
        if key:
            first = keys.setdefault(fingerprint(key.public), key)
            if first is not key:
                problems.add(place.child(name), f"is the same key as key.{first.name}")
    return keys


def _read_key(name: str, table: object, place: Place, problems: Problems) -> Key | None:
    values = read_table(table, _KeyTable, place, problems)
    if "ed25519" not in values:
        return None
    try:
        return Key(name, _public(values["ed25519"]))
    except ValueError as error:
        problems.add(place.child("ed25519"), str(error))
    return None


def _public(text: str) -> bytes:
    if not text.strip().startswith("-----BEGIN"):
        return from_base64(text.strip(), KEY_BYTES)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("expected an Ed25519 public key, PEM or base64 of its 32 bytes")
    return key.public_bytes_raw()
