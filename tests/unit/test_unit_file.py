"""The systemd unit: systemd takes it, and it does what the daemon relies on."""

import configparser
import shutil
import subprocess
from pathlib import Path

UNIT = Path(__file__).parents[2] / "layer45" / "layer45.service"


def test_it_cleans_up_however_the_daemon_ends() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"].endswith("/layer45 run --log-json")
    assert service["ExecStopPost"].endswith("/layer45 rules --remove")
    assert service["ExecReload"].endswith("/layer45 reload")
    assert "WatchdogSec" in service


def test_systemd_takes_it(tmp_path: Path) -> None:
    program = shutil.which("true") or "/bin/true"
    (tmp_path / "layer45.service").write_text(UNIT.read_text().replace("/usr/local/bin/layer45", program))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "layer45.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "layer45.service" not in done.stderr
    assert done.returncode == 0, done.stderr
