# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""layer45.toml: defaults, ranges, and every wrong key with its line."""

from pathlib import Path
from typing import Any

import pytest

from layer45.config import Settings, load_settings
from layer45.errors import ConfigError


def problems(directory: Path, text: str) -> list[str]:
    (directory / "layer45.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(directory)
    return [line.removeprefix(f"{directory}/") for line in caught.value.problems]


def test_defaults_without_a_file(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    assert settings == Settings()
    assert settings.control_socket == "/run/layer45/control.sock"
    assert (settings.first_queue, settings.workers, settings.mark_mask) == (4500, 1, 0x30FF)
    assert settings.module_dirs == ("/etc/layer45/modules",)


def test_every_key(tmp_path: Path) -> None:
    (tmp_path / "layer45.toml").write_text("""
control_socket = "/run/x.sock"
first_queue = 7
workers = 2
mark_mask = 0x7
cgroup_root = "/a/b/"
backend = "nft"
max_flows = 10
udp_idle_s = 1
tcp_idle_s = 2
max_held = 0
queue_length = 1
coalesce_us = 50
busy_poll_us = 10
worker_cpus = "3,0-1"
module_dirs = ["mine", "/abs"]
seed = 9223372036854775807
""")
    assert load_settings(tmp_path) == Settings(
        control_socket="/run/x.sock", first_queue=7, workers=2, mark_mask=7, cgroup_root="a/b", backend="nft",
        max_flows=10, udp_idle_s=1, tcp_idle_s=2, max_held=0, queue_length=1,
        coalesce_us=50, busy_poll_us=10, worker_cpus="3,0-1",
        module_dirs=(str(tmp_path / "mine"), "/abs"), seed=(1 << 63) - 1,
    )  # fmt: skip


def test_the_highest_bit_exempts() -> None:
    marks = Settings(mark_mask=0x30FF).marks
    assert (marks.exempt_bit, marks.class_mask, marks.capacity) == (0x2000, 0x10FF, 511)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workers = 0", "1: workers: expected integer 1..256, got 0"),
        ('workers = "2"', '1: workers: expected integer 1..256, got "2"'),
        ("workers = true", "1: workers: expected integer 1..256, got true"),
        ("workers = 1.5", "1: workers: expected integer 1..256, got 1.5"),
        ("\n\nworker = 1", '3: worker: unknown key, did you mean "workers"?'),
        ("first_queue = 65536", "1: first_queue: expected integer 0..65534, got 65536"),
        ("first_queue = -1", "1: first_queue: expected integer 0..65534, got -1"),
        ('backend = "nftt"', '1: backend: expected one of "auto", "iptables", "nft", got "nftt", did you mean "nft"?'),
        ("backend = []", '1: backend: expected one of "auto", "iptables", "nft", got a list'),
        ("module_dirs = [1]", "1: module_dirs: expected list of text, got a list"),
        ('module_dirs = "x"', '1: module_dirs: expected list of text, got "x"'),
        ("mark_mask = 0x100000000", "1: mark_mask: expected integer 0..4294967295, got 4294967296"),
        ("mark_mask = 0", "1: mark_mask: expected at least 2 bits (the highest exempts, the others number the classes), got 0x0"),
        ("mark_mask = 8", "1: mark_mask: expected at least 2 bits (the highest exempts, the others number the classes), got 0x8"),
        ('control_socket = "run/x"', '1: control_socket: expected an absolute path of at most 107 bytes, got "run/x"'),
        ('cgroup_root = "a/../b"', '1: cgroup_root: expected a path below the cgroup mount, without . and .., got "a/../b"'),
        ('cgroup_root = "/"', '1: cgroup_root: expected a path below the cgroup mount, without . and .., got "/"'),
        ("worker_cpus = 0", "1: worker_cpus: expected text, got 0"),
        ("worker_cpus = [0]", "1: worker_cpus: expected text, got a list"),
        ('worker_cpus = "0-3,"', '1: worker_cpus: expected a list of processors, each once and below 8192, such as "0-3,6", got "0-3,"'),
        ("udp_idle_s = 0", "1: udp_idle_s: expected integer 1..2592000, got 0"),
        ("seed = 9223372036854775808", "1: seed: expected integer 0..9223372036854775807, got 9223372036854775808"),
        ("x = {", "1: not valid TOML: invalid initial character for a key part"),
        (
            "a = 1\nx = { a = 1,\n b = 2 }",
            "2: not valid TOML: invalid initial character for a key part; a table in { } must stand on one line",
        ),
        ("a = 1\nb = \n", "2: not valid TOML: invalid value"),
        ("a = 1\na = 2", "2: not valid TOML: cannot overwrite a value"),
        ('a = """\n\n', "1: not valid TOML: unterminated string"),
        ("a = 2001-99-99", "1: not valid TOML: expected newline or end"),
    ],
)  # fmt: skip
def test_one_wrong_key(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = problems(tmp_path, text)
    assert (
        found.startswith(f"layer45.toml:{expected}")
        if "TOML" in expected
        else found == f"layer45.toml:{expected}"
    )


def test_all_problems_at_once_in_order(tmp_path: Path) -> None:
    lines = [f"x{n} = 1" for n in range(12)]
    found = problems(tmp_path, "\n".join(["workers = 0", *lines, 'backend = ""']))
    assert [line.split(":")[1] for line in found] == [str(n) for n in range(1, 15)]


def test_unreadable_places(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "none")
    expected = "expected a directory with layer45.toml and policies/*.toml"
    assert caught.value.problems == [
        f"{tmp_path}/none: cannot be read: No such file or directory; {expected}"
    ]
    (tmp_path / "layer45.toml").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path)
    assert caught.value.problems == [f"{tmp_path}/layer45.toml: cannot be read: Is a directory"]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "layer45.toml").write_bytes(b"# a\n# b\n\xff")
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path)
    assert caught.value.problems == [f"{tmp_path}/layer45.toml:3: not UTF-8 text"]


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 10_000])
def test_hostile_files_get_one_line(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, text)
    assert found.startswith("layer45.toml: not valid TOML: ")
    assert len(found) < 300


def test_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "layer45.toml").write_bytes(b"# a\r\n\r\nworkers = 0\r\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path)
    assert caught.value.problems[0].startswith(f"{tmp_path}/layer45.toml:3: workers: ")


def test_good_keys_count_beside_wrong_ones(configuration: Any) -> None:
    configuration.module("own")
    configuration.settings("workers = 0")
    configuration.policies('[policy.p]\nmatch = { protocol = "udp" }\nchain = [{ module = "own" }]')
    assert configuration.problems() == ["layer45.toml:2: workers: expected integer 1..256, got 0"]


def test_held_packets_must_leave_room_in_the_queue(tmp_path: Path) -> None:
    (tmp_path / "layer45.toml").write_text("max_held = 64\nqueue_length = 64\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path)
    assert caught.value.problems == [
        f"{tmp_path}/layer45.toml:1: max_held: expected less than queue_length (64), got 64"
    ]
