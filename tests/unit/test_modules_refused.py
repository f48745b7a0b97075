# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""Modules that may not be used: each refused by name and reason, and what runs stays."""

import json
import os
import re
import shutil
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layer45 import modulefolder
from layer45.check import check
from layer45.cli import main
from layer45.config import Settings
from layer45.loader import Plan, load_code
from layer45.module_sign import sign_module
from layer45.module_signature import fingerprint, make_key, read_private
from layer45.modulefolder import find_modules

CODE = "class Module:\n    def __init__(self, parameters, count): ...\n    def egress(self, packet): ...\n"
POLICY = '[policy.p]\nmatch = { protocol = "udp" }\nchain = [ { module = "shout" } ]\n'
SOMEBODY = 12345


class Site:
    """A configuration with one module `shout`, in use, and a key that trust.toml has."""

    def __init__(self, configuration: Any, directory: Path) -> None:
        self.configuration = configuration
        self.folder = configuration.module("shout", code=CODE)
        configuration.policies(POLICY)
        self.key = directory / "key"
        self.public = make_key(self.key)
        self.trust()

    def trust(self, require: str = '"all"', public: bytes | None = None) -> None:
        text = b64encode(public or self.public).decode()
        file = self.configuration.directory / "trust.toml"
        file.write_text(f'require = {require}\n[key.release]\ned25519 = "{text}"\n')

    def sign(self, key: Path | None = None) -> None:
        sign_module(self.folder, read_private(key or self.key))

    def load(self) -> Plan:
        plan: Plan = self.configuration.load()
        load_code(plan)
        return plan

    def refusal(self) -> str:
        (line,) = self.configuration.problems()
        return str(line)


@pytest.fixture
def site(configuration: Any, tmp_path: Path) -> Site:
    return Site(configuration, tmp_path)


def test_a_signed_module_is_used(site: Site) -> None:
    site.sign()
    (instance,) = site.load().chains[0].instances
    assert instance.module.standing is not None
    assert instance.module.standing.as_dict() == {
        "owner": os.geteuid(), "content_hash": instance.module.manifest.content_hash,
        "signature": "valid", "signed_by": "release", "required": True,
    }  # fmt: skip


def unsigned(site: Site) -> None:
    site.sign()
    (site.folder / "module.sig").unlink()


def other_key(site: Site) -> None:
    key = site.key.with_name("other")
    make_key(key)
    site.sign(key)


def other_content(site: Site) -> None:
    """A right hash and a right signature, which do not belong together."""
    site.sign()
    signature = (site.folder / "module.sig").read_text()
    (site.folder / "more").write_text("more")
    site.sign()
    (site.folder / "module.sig").write_text(signature)


def changed(name: str) -> Callable[[Site], None]:
    def change(site: Site) -> None:
        site.sign()
        with (site.folder / name).open("a") as file:
            file.write("# more\n")

    return change


def truncated(site: Site) -> None:
    site.sign()
    text = (site.folder / "module.sig").read_text()
    (site.folder / "module.sig").write_text(text[:-9] + '"\n')


def hash_gone(site: Site) -> None:
    site.sign()
    manifest = site.folder / "module.toml"
    manifest.write_text("\n".join(line for line in manifest.read_text().split("\n") if "hash" not in line))


def other_abi(site: Site) -> None:
    manifest = site.folder / "module.toml"
    manifest.write_text(manifest.read_text().replace("abi = 1", "abi = 2"))


MEND = "; run: layer45 modules sign shout --key FILE"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda site: None, f"modules/shout/module.sig: unsigned: no such file, and trust.toml wants a signature; module shout is refused{MEND}"),
        (unsigned, f"modules/shout/module.sig: unsigned: no such file, and trust.toml wants a signature; module shout is refused{MEND}"),
        (hash_gone, f"modules/shout/module.sig: signs nothing: module.toml has no content_hash; module shout is refused{MEND}"),
        (changed("shout.py"), "modules/shout/module.toml:2: module.content_hash: altered: the files have sha256:…; module shout is refused"),
        (changed("module.toml"), "modules/shout/module.toml:2: module.content_hash: altered: the files have sha256:…; module shout is refused"),
        (other_key, "modules/shout/module.sig: signed by a key that trust.toml does not have, sha256:…; module shout is refused"),
        (other_content, "modules/shout/module.sig: altered: the signature by key.release was not made for this content; module shout is refused"),
        (truncated, 'modules/shout/module.sig:3: signature.ed25519: expected 64 bytes in base64, got "…"'),
        (other_abi, "modules/shout/module.toml:4: module.abi: expected 1, which this engine has, got 2"),
    ],
)  # fmt: skip
def test_a_module_that_is_not_what_was_signed(site: Site, spoil: Any, expected: str) -> None:
    spoil(site)
    found = re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", site.refusal())
    assert re.sub(r'got "[^"]+$', 'got "…"', found) == expected


@pytest.mark.parametrize("spoil", [changed("shout.py"), other_content, truncated])
def test_a_hash_or_a_signature_that_is_there_must_fit_even_where_none_is_asked_for(
    site: Site, spoil: Any
) -> None:
    site.trust('"none"')
    site.load()
    spoil(site)
    site.refusal()


def test_an_unknown_key_counts_only_where_one_is_asked_for(site: Site) -> None:
    other_key(site)
    site.trust('"none"')
    assert site.load().chains[0].instances[0].module.standing.signature == "unknown key"  # type: ignore[union-attr]


def test_a_key_that_is_taken_out_counts_no_more_at_the_next_load(site: Site) -> None:
    site.sign()
    site.load()
    other = make_key(site.key.with_name("other"))
    site.trust(public=other)
    expected = (
        f"signed by a key that trust.toml does not have, {fingerprint(site.public)}; module shout is refused"
    )
    assert site.refusal() == f"modules/shout/module.sig: {expected}"


def test_a_module_of_a_package_need_not_be_signed_for_the_site(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = site.configuration.directory / "modules"
    package = site.configuration.directory / "package"
    modules.rename(package)
    modules.mkdir()
    monkeypatch.setattr(modulefolder, "DISTRIBUTION_MODULE_DIR", str(package))
    site.trust('"site"')
    assert site.load().chains[0].instances[0].module.folder == package / "shout"
    site.trust('"all"')
    assert "unsigned" in site.refusal()
    site.trust('["shout"]')
    assert "unsigned" in site.refusal()
    site.trust('["shot"]')
    expected = (
        f'{site.configuration.directory}/trust.toml:1: require[0]: no module "shot", did you mean "shout"?'
    )
    assert site.load().warnings == (expected,)
    package.chmod(0o775)
    assert site.refusal().startswith("package: can be written by its group (mode 0775)")


def test_a_package_comes_before_the_site(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    package = site.configuration.directory / "package"
    shutil.copytree(site.configuration.directory / "modules", package)
    monkeypatch.setattr(modulefolder, "DISTRIBUTION_MODULE_DIR", str(package))
    index = find_modules(Settings(module_dirs=(str(site.folder.parent),)))
    assert index.modules["shout"].folder == package / "shout"
    assert index.hidden == (f"{site.folder}: not used; a module shout was found earlier",)


# ---- places


@pytest.mark.root
@pytest.mark.parametrize(
    "name", ["modules", "modules/shout", "modules/shout/module.toml", "modules/shout/shout.py"]
)
def test_a_module_that_was_given_to_somebody_else(site: Site, name: str) -> None:
    site.sign()
    os.chown(site.configuration.directory / name, SOMEBODY, 0)
    assert site.refusal() == f"{name}: belongs to uid {SOMEBODY}; expected root; module shout is refused"


@pytest.mark.parametrize("name", ["modules", "modules/shout", "modules/shout/shout.py"])
def test_a_module_that_others_can_write(site: Site, name: str) -> None:
    site.sign()
    path = site.configuration.directory / name
    path.chmod(path.stat().st_mode & 0o755 | 0o020)
    assert site.refusal().startswith(f"{name}: can be written by its group (mode 0")
    assert site.refusal().endswith("; module shout is refused")


def test_links_in_a_module_are_refused(site: Site) -> None:
    site.sign()
    outside = site.configuration.directory / "outside.py"
    (site.folder / "shout.py").rename(outside)
    (site.folder / "shout.py").symlink_to(outside)
    expected = (
        "modules/shout/shout.py: is a symbolic link; expected what it leads to; module shout is refused"
    )
    assert site.refusal() == expected


def test_a_folder_that_is_a_link_is_refused(site: Site) -> None:
    site.sign()
    elsewhere = site.configuration.directory / "elsewhere"
    site.folder.rename(elsewhere)
    site.folder.symlink_to(elsewhere)
    assert (
        site.refusal()
        == "modules/shout: is a symbolic link; expected what it leads to; module shout is refused"
    )


def test_a_directory_that_is_a_link_is_looked_at_where_it_leads(site: Site) -> None:
    site.sign()
    modules, real = site.folder.parent, site.configuration.directory / "real"
    modules.rename(real)
    modules.symlink_to(real)
    site.load()
    real.chmod(0o777)
    assert site.refusal().startswith("real: can be written by everybody (mode 0777)")


# ---- the configuration itself


@pytest.mark.parametrize("name", ["layer45.toml", "trust.toml", "policies/a.toml", "policies", "."])
def test_a_configuration_that_others_can_write(site: Site, name: str) -> None:
    site.sign()
    path = site.configuration.directory / name
    path.chmod(path.stat().st_mode & 0o755 | 0o002)
    lines = [
        line.replace(str(site.configuration.directory), "").lstrip("/")
        for line in site.configuration.problems()
    ]
    shown = "" if name == "." else name
    assert lines[0].startswith(f"{shown}: can be written by everybody (mode 0")
    assert len(lines) == (2 if name == "layer45.toml" else 1)  # which would have said where modules are


@pytest.mark.root
def test_a_configuration_of_somebody_else(site: Site) -> None:
    site.sign()
    os.chown(site.configuration.directory / "policies/a.toml", SOMEBODY, 0)
    assert site.refusal() == f"policies/a.toml: belongs to uid {SOMEBODY}; expected root"


def test_a_policy_may_be_a_link_if_all_of_its_way_passes(site: Site) -> None:
    site.sign()
    real = site.configuration.directory / "real.toml"
    (site.configuration.directory / "policies/a.toml").rename(real)
    (site.configuration.directory / "policies/a.toml").symlink_to("../real.toml")
    site.load()
    real.chmod(0o666)
    assert site.refusal().startswith("real.toml: can be written by everybody (mode 0666)")


# ---- what is said of it


def test_a_refused_module_that_nobody_uses_stops_nothing(site: Site) -> None:
    site.configuration.policies('[policy.p]\nmatch = { protocol = "udp" }\n')
    plan = site.load()
    (warning,) = plan.warnings
    assert "unsigned" in warning
    assert "module shout is refused" in warning
    report = check(site.configuration.directory)
    assert (report["ok"], report["problems"]) == (False, [warning])


def told(site: Site, capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> tuple[str, str]:
    assert main(["modules", *words, "--config", str(site.configuration.directory)]) == status
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_the_whole_way_on_the_command_line(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / "README.md").write_text("x")
    out, _ = told(site, capsys, "verify", "shout", status=1)
    assert out.splitlines()[1].split()[:2] == ["shout", "refused"]
    out, _ = told(site, capsys, "sign", "shout", "--key", str(site.key))
    (verified,) = json.loads(told(site, capsys, "verify", "shout", "--json")[0])
    assert (verified["ok"], verified["trust"]["state"], verified["trust"]["signed_by"]) == (
        True,
        "signed",
        "release",
    )
    assert verified["trust"]["content_hash"] == out.strip()
    listed = {
        each["name"]: each["trust"]["state"] for each in json.loads(told(site, capsys, "list", "--json")[0])
    }
    assert (listed["shout"], listed["tag"]) == ("signed", "shipped")
    assert "signed by release" in told(site, capsys, "list")[0]
    assert json.loads(told(site, capsys, "show", "shout", "--json")[0])["trust"]["owner"] == os.geteuid()
    (site.folder / "README.md").write_text("y")
    (verified,) = json.loads(told(site, capsys, "verify", "shout", "--json", status=1)[0])
    assert (verified["ok"], verified["trust"]) == (False, None)
    assert "altered" in verified["problems"][0]
    told(site, capsys, "sign", str(site.folder), "--key", str(site.key))
    assert told(site, capsys, "verify", "shout")[0].splitlines()[1].split() == [
        "shout",
        "signed",
        "by",
        "release",
        "ok",
    ]


def test_what_cannot_be_signed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    key = ("--key", str(site.key))
    assert "tag: is shipped with Layer 4.5" in told(site, capsys, "sign", "tag", *key, status=1)[1]
    assert 'no module "shou", did you mean' in told(site, capsys, "sign", "shou", *key, status=1)[1]
    assert (
        "others can use this key"
        in told(site, capsys, "sign", "shout", "--key", str(site.folder / "shout.py"), status=1)[1]
    )
    empty = site.configuration.directory / "empty"
    empty.mkdir()
    assert "module.toml: no such file" in told(site, capsys, "sign", str(empty), *key, status=1)[1]
    site.folder.chmod(0o777)
    assert "can be written by everybody" in told(site, capsys, "sign", "shout", *key, status=1)[1]


def test_a_key_from_keygen_is_one_for_trust(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    key = site.key.with_name("release2")
    assert main(["modules", "keygen", str(key)]) == 0
    with (site.configuration.directory / "trust.toml").open("a") as file:
        file.write(capsys.readouterr().out)
    site.sign(key)
    assert site.load().chains[0].instances[0].module.standing.signed_by == "release2"  # type: ignore[union-attr]
