# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""trust.toml and module.sig: what they mean, and one line for whatever else stands in them."""

import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.errors import ConfigError, Layer45Error
from layer45.module_signature import fingerprint, fits, make_key, read_private, read_signature, signed
from layer45.problems import Problems
from layer45.trust import Trust, load_trust

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
TEXT = b64encode(PUBLIC).decode()
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
OTHER_PEM = (
    X25519PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
HASH = f"sha256:{'5' * 64}"
FEW = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def trust(directory: Path, text: str) -> Trust:
    (directory / "trust.toml").write_text(text)
    return load_trust(directory)


def problems(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        trust(directory, text)
    return [line.removeprefix(f"{directory}/trust.toml:") for line in caught.value.problems]


def test_without_the_file_nothing_must_be_signed(tmp_path: Path) -> None:
    assert load_trust(tmp_path) == Trust()
    assert not Trust().requires("any", site=True)


@pytest.mark.parametrize(
    "text", [TEXT, f" {TEXT}\\n", PEM.replace("\n", "\\n"), PEM.rstrip().replace("\n", "\\n")]
)
def test_a_key_is_base64_or_pem(tmp_path: Path, text: str) -> None:
    (key,) = trust(tmp_path, f'[key.release]\ned25519 = "{text}"').keys.values()
    assert (key.name, key.public) == ("release", PUBLIC)


@pytest.mark.parametrize(
    ("require", "site", "package"),
    [("", True, True), ('"all"', True, True), ('"site"', True, False), ('"none"', False, False), ("[]", False, False),
     ('["a"]', True, True), ('["b", "c"]', False, False)],
)  # fmt: skip
def test_what_must_be_signed(tmp_path: Path, require: str, site: bool, package: bool) -> None:
    found = trust(tmp_path, f"require = {require}" if require else "")
    assert (found.requires("a", site=True), found.requires("a", site=False)) == (site, package)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('require = "al"', "1: require: expected \"none\", \"site\", \"all\" or a list of modules' names, got \"al\""),
        ("require = [1]", "1: require: expected \"none\", \"site\", \"all\" or a list of modules' names, got a list"),
        ("requires = []", '1: requires: unknown key, did you mean "require"?'),
        ("key = 1", "1: key: expected tables [key.NAME], got 1"),
        ("[key]\na = 1", "2: key.a: expected a table, got 1"),
        ("[key.a]", "1: key.a.ed25519: missing; expected text"),
        ("[key.a]\nrsa = 1", '2: key.a.rsa: unknown key; expected one of ed25519'),
        ("[key.a]\ned25519 = 1", "2: key.a.ed25519: expected text, got 1"),
        ('[key.a]\ned25519 = "AAAA"', '2: key.a.ed25519: expected 32 bytes in base64, got "AAAA"'),
        (f'[key.a]\ned25519 = "{TEXT}A"', f'2: key.a.ed25519: expected 32 bytes in base64, got "{TEXT}A"'),
        (f'[key.a]\ned25519 = """{OTHER_PEM}"""', "2: key.a.ed25519: expected an Ed25519 public key, PEM or base64 of its 32 bytes"),
        ('[key.a]\ned25519 = "-----BEGIN PUBLIC KEY-----"', "2: key.a.ed25519: expected an Ed25519 public key, PEM or base64 of its 32 bytes"),
        (f'[key.a]\ned25519 = "{TEXT}"\n[key.b]\ned25519 = "{TEXT}"', "3: key.b: is the same key as key.a"),
    ],
)  # fmt: skip
def test_one_wrong_key(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert expected in found
    assert len(found) <= 2


@FEW
@given(
    st.text(max_size=80) | st.sampled_from([TEXT, PEM, PEM[:-30], "", "\0", "é", "-----BEGIN"]), st.booleans()
)
def test_any_text_for_a_key(tmp_path: Path, text: str, whole: bool) -> None:
    escaped = "".join(f"\\U{ord(each):08x}" for each in text if not 0xD800 <= ord(each) < 0xE000)
    outcome(tmp_path, text.encode(errors="replace") if whole else f'[key.a]\ned25519 = "{escaped}"'.encode())


@FEW
@given(st.binary(max_size=60))
def test_any_bytes_for_the_file(tmp_path: Path, data: bytes) -> None:
    outcome(tmp_path, data)


def outcome(directory: Path, data: bytes) -> None:
    """Trust, or problems of one line each."""
    (directory / "trust.toml").write_bytes(data)
    try:
        load_trust(directory)
    except ConfigError as error:
        assert all(line.startswith(f"{directory}/trust.toml") for line in error.problems)
        assert all(len(line.splitlines()) == 1 for line in error.problems)


# ---- module.sig


def complaints(data: bytes) -> list[str]:
    found = Problems()
    assert read_signature(Path("module.sig"), data, found) is None
    return found.sorted_lines()


def test_what_was_signed_fits_and_nothing_else_does() -> None:
    found = read_signature(Path("module.sig"), signed(HASH, KEY).encode(), Problems())
    assert found is not None
    assert found.key == fingerprint(PUBLIC)
    assert fits(found, PUBLIC, HASH)
    assert not fits(found, PUBLIC, HASH.replace("5", "6", 1))
    assert not fits(found, bytes(32), HASH)
    assert not fits(found, Ed25519PrivateKey.generate().public_key().public_bytes_raw(), HASH)


def test_a_signature_made_for_another_purpose_does_not_fit() -> None:
    found = read_signature(Path("module.sig"), signed(HASH, KEY).encode(), Problems())
    assert found is not None
    bare = type(found)(found.key, KEY.sign(HASH.encode()))
    assert not fits(bare, PUBLIC, HASH)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["module.sig: signature.ed25519: missing; expected text", "module.sig: signature.key: missing; expected text"]),
        ("signature = 1", ["module.sig:1: signature: expected a table, got 1"]),
        ('[signature]\nkey = "k"\ned25519 = "AAAA"', ['module.sig:3: signature.ed25519: expected 64 bytes in base64, got "AAAA"']),
        ('[signature]\nkey = "k"\ned25519 = 3', ["module.sig:3: signature.ed25519: expected text, got 3"]),
        ("[signature", ["module.sig:1: not valid TOML: expected ']' at the end of a table declaration"]),
    ],
)  # fmt: skip
def test_a_file_that_is_no_signature(text: str, expected: list[str]) -> None:
    assert complaints(text.encode()) == expected


@FEW
@given(st.integers(0, 200))
def test_a_truncated_signature_is_told_of(length: int) -> None:
    whole = signed(HASH, KEY).encode()
    if length < len(whole) - 2:
        assert complaints(whole[:length])


@FEW
@given(st.binary(max_size=60), st.integers(0, 200))
def test_any_bytes_in_a_signature(data: bytes, at: int) -> None:
    whole = signed(HASH, KEY).encode()
    found = Problems()
    signature = read_signature(Path("module.sig"), whole[:at] + data + whole[at + len(data) :], found)
    assert (signature is None) == bool(found)
    assert all(len(line.splitlines()) == 1 for line in found.sorted_lines())
    if signature and signature.ed25519 != KEY.sign(b"layer45 module signature 1\0" + HASH.encode()):
        assert not fits(signature, PUBLIC, HASH)


# ---- private keys


def key_fault(file: Path) -> str:
    with pytest.raises(Layer45Error) as caught:
        read_private(file)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value).removeprefix(f"{file}: ").partition("; ")[0]


def test_a_key_that_is_made_is_only_its_owners(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert read_private(tmp_path / "key").public_key().public_bytes_raw() == public
    with pytest.raises(Layer45Error, match="key: cannot be made: File exists"):
        make_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    assert key_fault(tmp_path / "key") == "others can use this key (mode 0640)"


def test_keys_of_openssl_are_read(tmp_path: Path) -> None:
    file = tmp_path / "key"

    def openssl(*words: str) -> str:
        return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout

    openssl("genpkey", "-algorithm", "ed25519", "-out", str(file))
    file.chmod(0o600)
    pem = openssl("pkey", "-in", str(file), "-pubout")
    (key,) = trust(tmp_path, f'[key.a]\ned25519 = """\n{pem}"""').keys.values()
    assert read_private(file).public_key().public_bytes_raw() == key.public


def test_files_that_are_no_key(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert key_fault(file) == "cannot be read: No such file or directory"
    for options, expected in (
        (["-algorithm", "x25519"], "expected an Ed25519 private key"),
        (["-algorithm", "ed25519", "-aes256", "-pass", "pass:x"], "is encrypted"),
    ):
        subprocess.run(["openssl", "genpkey", *options, "-out", str(file)], check=True, capture_output=True)
        file.chmod(0o600)
        assert key_fault(file) == expected
    file.write_bytes(b"\xff\0")
    assert key_fault(file) == "expected a private key, PEM"
