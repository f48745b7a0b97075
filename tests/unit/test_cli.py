"""The command line from outside: exit status, one-line errors, --json, help, and how fast it is there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import Configuration

COMMANDS = [
    "doctor",
    "check",
    "rules",
    "replay",
    "run",
    "exec",
    "reload",
    "status",
    "flows",
    "stats",
    "attach",
    "detach",
    "sockets",
    "explain",
    "bench",
    "activate",
    "deactivate",
    "deprecate",
    "revoke",
    "modules",
    "fec",
]
ATTACHED = ["voice", "--pid", "1"]
MODULE_COMMANDS = ["list", "show", "verify", "new", "build", "sign", "keygen"]
VOICE = """
[policy.voice]
match = { protocol = "udp", remote_port = [5000] }
chain = [ { module = "tag", id = "a" } ]
"""


def layer45(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "layer45", *map(str, words)],
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    "words",
    [[], *([name] for name in COMMANDS), *(["modules", name] for name in MODULE_COMMANDS), ["fec", "plan"]],
)
def test_every_command_has_help(words: list[str]) -> None:
    done = layer45(*words, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("Usage: layer45")
    _, _, summaries = done.stdout.partition("Commands:")
    assert "..." not in summaries, "one is cut off"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["statsu"], "No such command 'statsu'"),
        (["status", "--josn"], "No such option"),
        (["flows", "--limit", "many"], "--limit"),
        (["flows", "--limit", "0"], "--limit"),
        (["replay", "in.pcap"], "Missing"),
        (["replay", "in", "out", "--policy", "x", "--direction", "up"], "--direction"),
        (["modules"], "Missing command"),
        (["exec", "voice"], "Missing argument"),
        (["revoke"], "Missing argument"),
        (["activate", "voice", "bulk"], "unexpected extra argument"),
        (["attach", "voice"], "--pid"),
        (["detach", "voice", "--pid", "0"], "--pid"),
        (["explain"], "either --pid or --socket"),
        (["explain", "--pid", "1", "--socket", "udp/*:1"], "either --pid or --socket"),
        (["explain", "--socket", "udp:1"], "expected PROTO/LOCAL or PROTO/LOCAL/REMOTE"),
        (["explain", "--socket", "udp/1.2.3:9"], "expected PROTO/LOCAL or PROTO/LOCAL/REMOTE"),
    ],
)
def test_wrong_use_is_one_line_and_2(words: list[str], expected: str) -> None:
    done = layer45(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("layer45: ")
    assert expected in done.stderr


def test_no_command_is_the_help_and_2() -> None:
    done = layer45()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


def test_version() -> None:
    done = layer45("--version")
    assert done.returncode == 0
    assert done.stdout.split()[0] == "layer45"


@pytest.mark.parametrize(
    "command", ["status", "stats", "flows", "reload", "exec", "attach", "detach", "sockets", "revoke"]
)
def test_without_a_daemon_the_socket_and_the_command_are_named(
    command: str, configuration: Configuration, tmp_path: Path
) -> None:
    configuration.settings(f'control_socket = "{tmp_path}/none.sock"\n')
    more = {"exec": ["voice", "--", "true"], "attach": ATTACHED, "detach": ATTACHED, "revoke": ["voice"]}
    done = layer45(command, "--config", configuration.directory, *more.get(command, []))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"layer45: {tmp_path}/none.sock: no daemon is running here; "
        f"start it: layer45 run --config {configuration.directory}\n"
    )


def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    for command in ("status", "check", "rules", "reload"):
        done = layer45(command, "--config", tmp_path / "none")
        assert done.returncode == 1
        assert done.stderr.startswith(f"layer45: {tmp_path}/none: ")
        assert len(done.stderr.splitlines()) == 1


def test_check_tells_each_problem_on_a_line(configuration: Configuration) -> None:
    configuration.policies(VOICE)
    configuration.policies('[policy.x]\nmatsch = {}\nstate = "activ"\n', "b.toml")
    done = layer45("check", configuration.directory)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"layer45: {configuration.directory}/policies/b.toml:") for line in lines)
    document = json.loads(layer45("check", configuration.directory, "--json").stdout)
    assert document["ok"] is False
    assert [f"layer45: {problem}" for problem in document["problems"]] == lines


def test_check_of_a_sound_configuration(configuration: Configuration) -> None:
    configuration.policies(VOICE)
    done = layer45("check", "--config", configuration.directory)
    assert done.returncode == 0
    assert "voice" in done.stdout
    assert done.stdout.endswith("ok: 1 policy\n")
    document = json.loads(layer45("check", configuration.directory, "--json").stdout)
    assert document["ok"] is True
    assert document["policies"][0]["modules"] == ["tag"]


@pytest.mark.parametrize("backend", ["iptables", "nft"])
def test_rules_are_printed_without_root(configuration: Configuration, backend: str) -> None:
    configuration.policies(VOICE)
    words = ["rules", "--config", str(configuration.directory), "--backend", backend]
    done = subprocess.run(
        ["unshare", "--user", sys.executable, "-m", "layer45", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "5000" in done.stdout
    document = json.loads(layer45(*words, "--json").stdout)
    assert document["backend"] == backend
    assert document["rules"].strip() == done.stdout.strip()


def test_removing_rules_without_root_is_one_line(configuration: Configuration) -> None:
    words = [sys.executable, "-m", "layer45", "rules", "--remove", "--config", str(configuration.directory)]
    done = subprocess.run(["unshare", "--user", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("layer45: removing rules needs root")
    assert len(done.stderr.splitlines()) == 1


def test_modules_are_listed_and_shown(configuration: Configuration) -> None:
    listed = json.loads(layer45("modules", "list", "--json", "--config", configuration.directory).stdout)
    assert {"tag", "drop", "scramble"} <= {module["name"] for module in listed}
    shown = json.loads(
        layer45("modules", "show", "tag", "--json", "--config", configuration.directory).stdout
    )
    assert shown["parameters"][0]["name"] == "id"
    assert "tagged" in shown["counters"]
    plain = layer45("modules", "show", "tag", "--config", configuration.directory).stdout
    assert "id" in plain
    assert "(required)" in plain
    assert "RATIO" not in plain


def test_what_a_stream_module_declares_of_its_own_is_shown(configuration: Configuration) -> None:
    words = ["modules", "show", "stream_tag", "--config", configuration.directory]
    shown, plain = json.loads(layer45(*words, "--json").stdout), layer45(*words).stdout
    assert shown["stream_growth"] == {"bytes": "tag_bytes", "every": "every_bytes"}
    local = {each["name"] for each in shown["parameters"] if each["local"]}
    assert local == {"id", "expect", "unmarked"}
    assert "bytes tag_bytes, every every_bytes" in plain
    assert plain.count("may differ") == len(local)


def test_a_modules_ratios_are_shown(configuration: Configuration) -> None:
    words = ["modules", "show", "example_python", "--config", configuration.directory]
    ratio = json.loads(layer45(*words, "--json").stdout)["ratios"]["compressed_share"]
    assert (ratio["of"], ratio["to"]) == (["compressed"], ["compressed", "stored"])
    assert f"compressed_share  compressed / (compressed + stored)  {ratio['help']}" in layer45(*words).stdout


def test_an_unknown_module_gets_a_suggestion(configuration: Configuration) -> None:
    done = layer45("modules", "show", "tga", "--config", configuration.directory)
    assert done.returncode == 1
    assert 'no module "tga", did you mean "tag"?' in done.stderr


def test_a_broken_module_is_told_by_verify(configuration: Configuration) -> None:
    configuration.module("broken", code="class Module:\n    def egress(self, packet): pass\n")
    (configuration.directory / "modules/broken/broken.py").write_text("1 +\n")
    done = layer45("modules", "verify", "broken", "--config", configuration.directory)
    assert done.returncode == 1
    assert "broken.py:1: cannot be loaded: SyntaxError" in done.stdout


@pytest.mark.parametrize("name", ["Upper", "with-dash", "1st", "", "class", "a" + "é"])
def test_a_name_no_module_can_have_is_refused(name: str, tmp_path: Path) -> None:
    done = layer45("modules", "new", name, "--directory", tmp_path)
    assert done.returncode == 1
    assert "a module's name is" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_a_python_module_is_one_line_with_its_place(
    configuration: Configuration, tmp_path: Path
) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.utils import wrpcap

    code = (
        "class Module:\n    def __init__(self, p, c): pass\n    def egress(self, packet):\n        1 // 0\n"
    )
    configuration.module("faulty", code=code)
    configuration.policies('[policy.p]\nmatch = { protocol = "udp" }\nchain = [ { module = "faulty" } ]\n')
    wrpcap(str(tmp_path / "in.pcap"), [IP(dst="10.0.0.1") / UDP(sport=1, dport=2)] * 3, linktype=101)
    words = ["--config", configuration.directory, "--policy", "p", "--direction", "egress"]
    done = layer45("replay", *words, tmp_path / "in.pcap", tmp_path / "out.pcap")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"layer45: {configuration.directory}/modules/faulty/faulty.py:4: ")
    assert line.endswith("ZeroDivisionError: integer division or modulo by zero")


def test_a_reader_that_leaves_is_no_accident(configuration: Configuration) -> None:
    show = f"{sys.executable} -m layer45 modules show tag --config {configuration.directory}"
    for _ in range(3):
        done = subprocess.run(
            ["bash", "-c", f"{show} | true; exit $PIPESTATUS"], capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        assert done.returncode in (0, 1)


def test_a_full_disk_is_one_line(configuration: Configuration) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "layer45", "modules", "list", "--config", configuration.directory],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "layer45: No space left on device\n"


def test_ctrl_c_is_130(configuration: Configuration, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    words = ["replay", "--config", configuration.directory, "--policy", "voice", "--direction", "egress"]
    configuration.policies(VOICE)
    process = subprocess.Popen(
        [sys.executable, "-m", "layer45", *words, tmp_path / "never", tmp_path / "out.pcap"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, "")


def test_an_accident_is_one_line_and_says_how_to_see_more(configuration: Configuration) -> None:
    code = (
        "import sys; import layer45.control_client as c; c.ask = lambda *a: 1 // 0;"
        " from layer45.cli import main; sys.exit(main())"
    )
    words = [sys.executable, "-c", code, "status", "--config", str(configuration.directory)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "internal error: ZeroDivisionError" in done.stderr
    assert "LAYER45_TRACEBACK=1" in done.stderr


def test_help_and_live_commands_import_nothing_heavy() -> None:
    """What an operator types often must be there at once: no Rich, Scapy, NumPy, or compiled code."""
    code = (
        "import sys; from layer45.cli import main; main(['status', '--config', '/nonexistent']);"
        " tops = {name.split('.')[0] for name in sys.modules};"
        " print(sorted(tops & {'rich', 'scapy', 'numpy', 'structlog', 'asyncio'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n"
