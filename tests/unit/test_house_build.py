"""What `make build` says when it cannot do its work, and that it knows what is there already."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "system-packages"


def pretend(folder: Path, **programs: str) -> dict[str, str]:
    """An environment in which some programs print something else."""
    for name, body in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def run(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL)


def test_without_root_missing_packages_are_one_clear_line(tmp_path: Path) -> None:
    done = run(pretend(tmp_path, dpkg_query="exit 1", id="echo 1000", apt_get="echo called >&2; exit 1"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("make build: missing packages; run: sudo apt-get install build-essential")
    assert "libnetfilter-queue-dev" in line


def test_with_everything_there_apt_is_not_asked(tmp_path: Path) -> None:
    done = run(pretend(tmp_path, dpkg_query="echo installed", apt_get="echo called >&2; exit 1"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_what_is_missing_is_installed_and_the_lists_are_refreshed_once_needed(tmp_path: Path) -> None:
    log, fresh = tmp_path / "log", tmp_path / "fresh"
    programs = {
        "dpkg_query": 'for name; do :; done; [ "$name" = curl ] || echo installed',
        "apt_get": f'echo "$@" >>{log}; case "$*" in *update*) touch {fresh};; esac; [ -e {fresh} ]',
        "id": "echo 0",
    }
    done = run(pretend(tmp_path, **programs))
    assert done.returncode == 0, done.stderr
    calls = [line.split()[-3:] for line in log.read_text().splitlines()]
    assert [call[-1] for call in calls] == ["curl", "update", "curl"]


def test_the_interpreter_for_the_environment_is_new_enough() -> None:
    done = run(dict(os.environ), "--python")
    assert done.returncode == 0, done.stderr
    asked = "import sys; sys.exit(sys.version_info < (3, 11))"
    assert subprocess.run([done.stdout.strip(), "-c", asked]).returncode == 0
