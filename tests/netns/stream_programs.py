"""Programs from Debian for the tests of TCP streams: lighttpd (HTTP/1.1, HTTP/2 with TLS), sshd, iperf3."""

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .streams import LIMIT_S, listens
from .topology import Host, Hosts

WEB, SECURE, SHELL, IPERF = 8080, 8443, 2222, 5201

# /sum.sh answers with the SHA-256 of what was uploaded.
LIGHTTPD = """
server.modules = ( "mod_openssl", "mod_cgi" )
server.document-root = "{root}"
server.upload-dirs = ( "{root}" )
server.port = {web}
server.bind = "0.0.0.0"
cgi.assign = ( ".sh" => "/bin/sh" )
$SERVER["socket"] == "[::]:{web}" {{ }}
$SERVER["socket"] == "0.0.0.0:{secure}" {{ ssl.engine = "enable" }}
$SERVER["socket"] == "[::]:{secure}" {{ ssl.engine = "enable" }}
ssl.pemfile = "{root}/certificate.pem"
"""
SSHD = """
Port {port}
HostKey {root}/host_key
AuthorizedKeysFile {root}/key.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@contextlib.contextmanager
def lighttpd(host: Host, root: Path) -> Iterator[None]:
    """Serves what is in root on WEB, and on SECURE with TLS."""
    key, certificate = root / "key.pem", root / "certificate.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=b -keyout {key} -out {certificate}"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + key.read_text())
    (root / "sum.sh").write_text('sum=$(sha256sum)\nprintf "Content-Type: text/plain\\r\\n\\r\\n$sum"\n')
    (root / "lighttpd.conf").write_text(LIGHTTPD.format(root=root, web=WEB, secure=SECURE))
    server = host.popen(["lighttpd", "-D", "-f", str(root / "lighttpd.conf")])
    for port in (WEB, SECURE):
        listens(host, port)
    yield
    server.terminate()
    server.wait(5)


def url(host: Host, family: int, port: int, name: str) -> str:
    """Of a file on the host's web server."""
    scheme = "https" if port == SECURE else "http"
    return (
        f"{scheme}://[{host.ipv6}]:{port}/{name}" if family == 10 else f"{scheme}://{host.ipv4}:{port}/{name}"
    )


def curl(host: Host, *words: str) -> bytes:
    """What it prints; it takes any certificate."""
    argv = ["curl", "--silent", "--show-error", "--fail", "--insecure", "-m", str(LIMIT_S), *words]
    return bytes(host.run(argv, text=False).stdout)


@contextlib.contextmanager
def sshd(host: Host, root: Path) -> Iterator[None]:
    """Lets root in on SHELL with the key in root, and nobody else."""
    for name in ("host_key", "key"):
        made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)]
        subprocess.run(made, check=True, capture_output=True)
    (root / "sshd.conf").write_text(SSHD.format(port=SHELL, root=root))
    separate = Path("/run/sshd")  # where it wants to be without privileges
    there = separate.exists()
    separate.mkdir(mode=0o755, exist_ok=True)
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", str(root / "sshd.conf")]
    server = host.popen(argv, stderr=subprocess.DEVNULL)
    listens(host, SHELL)
    yield
    server.terminate()
    server.wait(5)
    if not there:
        separate.rmdir()


def ssh_words(root: Path) -> list[str]:
    """How ssh and scp find the key, and ask nothing."""
    quiet = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    return ["-i", str(root / "key"), "-F", "/dev/null", *(word for each in quiet for word in ("-o", each))]


@contextlib.contextmanager
def iperf_server(host: Host) -> Iterator[None]:
    """On IPERF."""
    server = host.popen(["iperf3", "--server", "--port", str(IPERF)], stdout=subprocess.DEVNULL)
    listens(host, IPERF)
    yield
    server.kill()
    server.wait(5)


def iperf(hosts: Hosts, family: int, *words: str) -> dict[str, Any]:
    """What a client on a says at its end."""
    argv = ["iperf3", "--json", "-t", "2", "-p", str(IPERF), "-c", hosts.b.address(family), *words]
    done = json.loads(hosts.a.run(argv, timeout=LIMIT_S).stdout)
    assert "error" not in done, done["error"]
    return dict(done["end"])


def tree_digests(root: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
