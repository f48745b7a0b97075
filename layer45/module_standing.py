"""Whether a module may be used: is its content what its manifest says, and has somebody vouched for it?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from layer45.manifest import Manifest
from layer45.module_content import MANIFEST, SIGNATURE, Files, content_hash, hash_line
from layer45.module_signature import Signature, fits, read_signature
from layer45.problems import Place, Problems
from layer45.trust import Trust

Signed = Literal["valid", "unknown key", "none"]


@dataclass(frozen=True)
class Standing:
    """owner: of its folder, a user's number. content_hash: "" where module.toml has none.

    signed_by: the key's name in trust.toml, or its fingerprint where that does not have it.
    """

    owner: int
    content_hash: str = ""
    signature: Signed = "none"
    signed_by: str = ""
    required: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "owner": self.owner,
            "content_hash": self.content_hash,
            "signature": self.signature,
            "signed_by": self.signed_by,
            "required": self.required,
        }


@dataclass(frozen=True)
class Found:
    """What was read of a module's folder. site: it stands in module_dirs."""

    folder: Path
    owner: int
    manifest: Manifest
    files: Files
    signature: bytes | None
    site: bool

    @property
    def name(self) -> str:
        """The module's."""
        return self.manifest.name


def judge(found: Found, trust: Trust, problems: Problems) -> Standing | None:
    """None, and one problem or more, when the module is refused."""
    faults = Problems()
    required = trust.requires(found.name, found.site)
    _check_content(found, faults)
    signature = _signature(found, required, faults)
    standing = Standing(found.owner, found.manifest.content_hash, required=required)
    if signature and not faults:
        standing = _vouched(found, signature, standing, trust, faults)
    problems.extend(faults)
    return None if faults else standing


def _check_content(found: Found, faults: Problems) -> None:
    said = found.manifest.content_hash
    if not said:
        return
    manifest = found.folder / MANIFEST
    key = ("module", "content_hash")
    place = Place(manifest, {key: hash_line(found.files[MANIFEST])}, key)
    try:
        really = content_hash(found.files)
    except ValueError as error:
        faults.add(place, str(error))
        return
    if really != said:
        faults.add(place, f"altered: the files have {really}; {refused(found.name)}")


def _signature(found: Found, required: bool, faults: Problems) -> Signature | None:
    file = found.folder / SIGNATURE
    mend = f"{refused(found.name)}; run: layer45 modules sign {found.name} --key FILE"
    if found.signature is None:
        if required:
            faults.add_file(file, f"unsigned: no such file, and trust.toml wants a signature; {mend}")
        return None
    if not found.manifest.content_hash:
        faults.add_file(file, f"signs nothing: module.toml has no content_hash; {mend}")
        return None
    return read_signature(file, found.signature, faults)


def _vouched(
    found: Found, signature: Signature, standing: Standing, trust: Trust, faults: Problems
) -> Standing:
    file, key = found.folder / SIGNATURE, trust.keys.get(signature.key)
    if key is None:
        if standing.required:
            text = f"signed by a key that trust.toml does not have, {signature.key}"
            faults.add_file(file, f"{text}; {refused(found.name)}")
        return _with(standing, "unknown key", signature.key)
    if not fits(signature, key.public, standing.content_hash):
        text = f"altered: the signature by key.{key.name} was not made for this content"
        faults.add_file(file, f"{text}; {refused(found.name)}")
    return _with(standing, "valid", key.name)


def _with(standing: Standing, signature: Signed, signed_by: str) -> Standing:
    return Standing(standing.owner, standing.content_hash, signature, signed_by, standing.required)


def refused(name: str) -> str:
    """The end of each line about a refusal."""
    return f"module {name} is refused"
