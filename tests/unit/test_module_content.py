"""The content hash: what counts, in whatever order it lies on disk, and where module.toml says it."""

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer45 import module_content
from layer45.module_content import content_hash, read_files, with_hash, without_hash
from layer45.trusted_files import Distrusted, open_directory

MANIFEST = b'[module]\nname = "a"\n'
HASH = f"sha256:{'0' * 64}"


def read(folder: Path) -> tuple[dict[str, bytes], bytes | None]:
    with open_directory(folder) as opened:
        return read_files(opened)


def test_the_hash_is_what_its_description_says() -> None:
    files = {"module.toml": MANIFEST, "b": b"\xff", "a/b": b""}
    whole = sha256(b"layer45 module content 1\0")
    for name in ("a/b", "b", "module.toml"):
        whole.update(len(name).to_bytes(8) + name.encode() + len(files[name]).to_bytes(8) + files[name])
    assert content_hash(files) == f"sha256:{whole.hexdigest()}"


def test_what_counts(tmp_path: Path) -> None:
    for name in ("module.toml", "a.pyx", "a.so", "own.c", "deep/er/x", "deep/module.sig", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    counted = set(read(tmp_path)[0])
    for name in ("a.c", ".hidden", ".git/x", "__pycache__/a.pyc", "deep/__pycache__/b.pyc", "module.sig"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    files, signature = read(tmp_path)
    assert set(files) == counted
    assert (len(files), signature) == (7, b"module.sig")
    assert all(data == name.encode() for name, data in files.items())


@given(
    st.dictionaries(st.sampled_from(["a", "b", "ab", "a/b"]), st.binary(max_size=3), min_size=1), st.data()
)
def test_every_change_changes_it(files: dict[str, bytes], data: st.DataObject) -> None:
    whole = {"module.toml": MANIFEST, **files}
    other = {"module.toml": MANIFEST} | data.draw(
        st.dictionaries(st.sampled_from(["a", "b", "ab", "a/b"]), st.binary(max_size=3))
    )
    assert (content_hash(whole) == content_hash(other)) == (whole == other)


def test_names_that_are_no_text_count(tmp_path: Path) -> None:
    (tmp_path / "module.toml").write_bytes(MANIFEST)
    before = content_hash(read(tmp_path)[0])
    (tmp_path / "\udcff\n").write_text("")
    assert content_hash(read(tmp_path)[0]) != before


@pytest.mark.parametrize(
    "manifest",
    [
        MANIFEST,
        b"# first\n[module] # the module\nname = 'a'",
        b"[module]\r\nname = 'a'\r\n",
        b"x.y = 1\n[module]",
    ],
)
def test_a_hash_written_into_the_manifest_does_not_change_it(manifest: bytes) -> None:
    found = content_hash({"module.toml": manifest})
    written = with_hash(manifest, found)
    assert written != manifest
    assert without_hash(written) == manifest
    assert content_hash({"module.toml": written}) == found
    assert with_hash(with_hash(manifest, HASH), found) == written


@pytest.mark.parametrize(
    "manifest",
    [
        f'module = {{ name = "a", content_hash = "{HASH}" }}',
        f'[module]\ncontent_hash = "{HASH}" # {"x" * 9}',
        f'[module]\n"content_hash" = "{HASH}"',
        f'module.content_hash = "{HASH}"',
        f'[module]\ncontent_hash = """{HASH}"""',
    ],
)
def test_a_hash_in_an_unusual_place_is_refused(manifest: str) -> None:
    """Whatever shares its line would not count."""
    with pytest.raises(ValueError, match="on a line of its own"):
        content_hash({"module.toml": manifest.encode()})


def test_what_only_looks_like_the_hash_counts() -> None:
    text = b'[module]\nsummary = """\ncontent_hash = "%s"\n"""\n[param.x]\ncontent_hash = "%s"\n'
    low = text % (HASH.encode(), HASH.encode())
    first, second = (low.replace(b"0" * 64, digit * 64) for digit in (b"1", b"2"))
    assert content_hash({"module.toml": first}) != content_hash({"module.toml": second})
    assert without_hash(low) == low


@pytest.mark.parametrize("manifest", [b'module = { name = "a" }', b'module.name = "a"'])
def test_without_a_line_for_the_module_there_is_no_place_for_a_hash(manifest: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected a line \[module\]"):
        with_hash(manifest, HASH)


def test_a_folder_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "/".join("x" * 9)
    deep.mkdir(parents=True)
    with pytest.raises(Distrusted, match="lies too deep; expected at most 8 folders in each other"):
        read(tmp_path)
    deep.rmdir()
    monkeypatch.setattr(module_content, "MOST_FILES", 2)
    for name in "abc":
        (tmp_path / name).write_text("")
    with pytest.raises(Distrusted, match="holds too much for a module; expected at most 2 files and 64 MiB"):
        read(tmp_path)
    monkeypatch.setattr(module_content, "MOST_BYTES", 9)
    (tmp_path / "a").write_text("0123456789")
    with pytest.raises(Distrusted, match="a: is longer than 9 bytes"):
        read(tmp_path)
    (tmp_path / "c").unlink()
    (tmp_path / "a").write_text("01234")
    (tmp_path / "b").write_text("01234")
    with pytest.raises(Distrusted, match="holds too much"):
        read(tmp_path)
