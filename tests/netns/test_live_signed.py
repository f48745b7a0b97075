"""A site's own compiled module, signed and named in `load`: its life on the wire, without a restart.

host a: daemon, a sender  ───>  host b: a receiver without any policy, which sees what was done
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .live_daemon import LAYER45, LiveDaemon, live_daemon
from .topology import Hosts

pytestmark = pytest.mark.root

PORT = 5000
MATCH = f'\n[match]\nprotocol = "udp"\nremote_port = [{PORT}]\n'
SOMEBODY = 12345


class Site:
    """A directory with the module `stamp`, which puts its name behind every payload, and keys to sign it."""

    def __init__(self, hosts: Hosts, directory: Path, daemon: LiveDaemon) -> None:
        self.hosts = hosts
        self.directory = directory
        self.daemon = daemon
        self.folder = directory / "stamp"
        self.source = self.folder / "stamp.pyx"
        self.manifest = self.folder / "module.toml"
        self.modules("new", "stamp", "--directory", str(directory))
        self.manifest.write_text(self.manifest.read_text() + MATCH)
        self.trust("first")
        self.build()
        self.sign("first")
        daemon.policies("")
        self.load("stamp")

    def modules(self, *words: str) -> str:
        return str(self.hosts.a.run([*LAYER45, "modules", *words]).stdout)

    def trust(self, *names: str) -> None:
        """Whose signatures count."""
        keys = [self._public(name) for name in names]
        (self.daemon.directory / "trust.toml").write_text("".join(keys))

    def _public(self, name: str) -> str:
        """Makes the key when it is asked for first."""
        public = self.directory / f"{name}.toml"
        if not public.exists():
            public.write_text(self.modules("keygen", str(self.directory / name)))
        return public.read_text()

    def build(self) -> None:
        self.modules("build", str(self.folder))

    def sign(self, key: str) -> None:
        self.modules("sign", str(self.folder), "--key", str(self.directory / key))

    def load(self, *names: str) -> None:
        """Writes layer45.toml."""
        self.daemon.settings(module_dirs=[str(self.directory)], load=list(names))

    def refusal(self) -> str:
        """What a reload says that must fail."""
        before = self.daemon.json("status")
        (line,) = self.daemon.layer45("reload", status=1).splitlines()
        after = self.daemon.json("status")
        assert (after["pid"], after["generation"]) == (before["pid"], before["generation"])
        return line.removeprefix(f"layer45: {self.folder}/")

    def arrives(self, payload: bytes = b"hello ") -> bytes:
        """What the receiver gets of a new socket's datagram."""
        with (
            self.hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
            self.hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind((self.hosts.b.ipv4, PORT))
            receiver.settimeout(3)
            sender.sendto(payload, (self.hosts.b.ipv4, PORT))
            return receiver.recv(2048)


@pytest.fixture
def site(hosts: Hosts, tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    with live_daemon(hosts.a, tmp_path / "a") as daemon:
        yield Site(hosts, tmp_path / "site", daemon)


def test_a_signed_module_is_altered_mended_and_replaced_while_the_daemon_runs(site: Site) -> None:
    site.daemon.start()
    process = site.daemon.json("status")["pid"]
    assert site.arrives() == b"hello stamp"
    (policy,) = site.daemon.json("status")["policies"]
    assert (policy["name"], policy["chain"], policy["state"]) == ("stamp", ["stamp"], "active")

    built = next(site.folder.glob("*.so"))
    good = built.read_bytes()
    built.write_bytes(good.replace(b"stamp", b"STAMP"))  # in place: nothing that runs may be mapped from it
    assert "altered: the files have sha256:" in (line := site.refusal())
    assert line.startswith("module.toml:") and line.endswith("; module stamp is refused")
    assert site.arrives() == b"hello stamp"
    built.write_bytes(b"")
    assert site.arrives() == b"hello stamp"
    built.write_bytes(good)
    site.daemon.layer45("reload")

    second = site.source.read_text().replace("    return 0\n", "    self.mark[0] = b'S'\n    return 0\n")
    assert second != site.source.read_text()
    site.source.write_text(second)
    site.manifest.write_text(site.manifest.read_text().replace('"0.1.0"', '"0.2.0"'))
    site.build()
    assert "altered" in site.refusal()
    assert site.arrives() == b"hello stamp"
    site.sign("first")
    site.daemon.layer45("reload")
    assert site.arrives() == b"hello Stamp"
    status = site.daemon.json("status")
    (newest,) = (each for each in status["policies"][0]["versions"] if each["newest"])
    assert (status["pid"], newest["version"]) == (process, "stamp-0.2.0")

    site.load()
    site.daemon.layer45("reload")
    assert site.arrives() == b"hello "
    site.load("stamp")
    site.daemon.layer45("reload")
    assert site.arrives() == b"hello Stamp"
    assert site.daemon.end() == 0


def test_a_reload_refuses_by_name_and_reason_and_the_old_chain_stays(site: Site) -> None:
    site.daemon.start()
    site.trust("second")
    assert site.refusal().startswith("module.sig: signed by a key that trust.toml does not have, sha256:")
    site.sign("second")
    site.daemon.layer45("reload")

    os.chown(site.source, SOMEBODY, -1)
    expected = f"stamp.pyx: belongs to uid {SOMEBODY}; expected root; module stamp is refused"
    assert site.refusal() == expected
    os.chown(site.source, 0, -1)

    site.folder.chmod(0o775)
    assert "can be written by its group (mode 0775)" in site.refusal()
    site.folder.chmod(0o755)

    (site.folder / "outside").symlink_to("/etc/hostname")
    assert site.refusal().startswith("outside: is a symbolic link")
    (site.folder / "outside").unlink()

    (site.folder / "module.sig").rename(site.folder / ".sig")
    assert site.refusal().startswith("module.sig: unsigned: no such file")
    assert site.arrives() == b"hello stamp"
    assert "reload failed; nothing changed" in site.daemon.log_text()
    assert site.daemon.end() == 0


def test_a_daemon_does_not_start_with_a_configuration_that_others_can_write(site: Site) -> None:
    (site.daemon.directory / "trust.toml").chmod(0o664)
    refused = site.hosts.a.run(site.daemon.command("run"), check=False, timeout=20)
    assert refused.returncode == 1
    assert f"{site.daemon.directory}/trust.toml: can be written by its group (mode 0664)" in refused.stderr
    assert site.daemon.rules() == ""
