"""module.sig: who vouches for a module's content. Ed25519 (RFC 8032) over its hash.

    [signature]
    key = "sha256:…"          # fingerprint: SHA-256 of the public key's 32 bytes
    ed25519 = "…"             # base64 of the 64 bytes

What is signed is PREFIX and the text of the content hash, so that no signature made for another purpose fits.
"""

import base64
import binascii
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layer45.errors import Layer45Error
from layer45.problems import Problems, shown
from layer45.table import read_table, report_unknown
from layer45.toml_file import parse_toml

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX = b"layer45 module signature 1\0"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
HOW_TO = "layer45 modules keygen FILE, or: openssl genpkey -algorithm ed25519 -out FILE"


@dataclass(frozen=True)
class Signature:
    """key: the fingerprint of whoever signed. ed25519: 64 bytes."""

    key: str
    ed25519: bytes


@dataclass(frozen=True)
class _Table:
    key: str
    ed25519: str


def fingerprint(public: bytes) -> str:
    """Of a public key's 32 bytes."""
    return f"sha256:{sha256(public).hexdigest()}"


def from_base64(text: str, length: int) -> bytes:
    """So many bytes. Raises ValueError."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != length:
        raise ValueError(f"expected {length} bytes in base64, got {shown(text)}")
    return data


def read_signature(file: Path, data: bytes, problems: Problems) -> Signature | None:
    """The content of a module.sig. None, and a problem, if it is none."""
    read = parse_toml(file, data, problems)
    if read is None:
        return None
    top, place = read
    found = Problems()
    report_unknown(top, ("signature",), place, found)
    values = read_table(top.get("signature", {}), _Table, place.child("signature"), found)
    try:
        ed25519 = from_base64(values["ed25519"], SIGNATURE_BYTES) if "ed25519" in values else b""
    except ValueError as error:
        found.add(place.child("signature", "ed25519"), str(error))
    problems.extend(found)
    return None if found else Signature(values["key"], ed25519)


def fits(signature: Signature, public: bytes, content_hash: str) -> bool:
    """Whether the owner of the key has signed this content."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature.ed25519, PREFIX + content_hash.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def signed(content_hash: str, private: "Ed25519PrivateKey") -> str:
    """The text of a module.sig."""
    signature = private.sign(PREFIX + content_hash.encode())
    public = private.public_key().public_bytes_raw()
    return f'[signature]\nkey = "{fingerprint(public)}"\ned25519 = "{base64.b64encode(signature).decode()}"\n'


def read_private(file: Path) -> "Ed25519PrivateKey":
    """A private key, PEM, which nobody else can read. Raises Layer45Error."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read()
    except OSError as error:
        raise Layer45Error(f"{file}: cannot be read: {error.strerror}; to make a key: {HOW_TO}") from None
    if mode & 0o077:
        raise Layer45Error(
            f"{file}: others can use this key (mode {mode & 0o777:04o}); run: chmod 600 {file}"
        )
    key = _loaded(file, data)
    if not isinstance(key, Ed25519PrivateKey):
        raise Layer45Error(f"{file}: expected an Ed25519 private key; to make one: {HOW_TO}")
    return key


def _loaded(file: Path, data: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(data, password=None)
    except TypeError:
        raise Layer45Error(f"{file}: is encrypted; expected a key without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Layer45Error(f"{file}: expected a private key, PEM; to make one: {HOW_TO}") from None


def make_key(file: Path) -> bytes:
    """Writes a new private key, PEM, readable for its owner only. Its public key. Raises Layer45Error."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Layer45Error(f"{file}: cannot be made: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(pem)
    return key.public_key().public_bytes_raw()
