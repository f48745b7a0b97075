"""A skip is never a pass: as root, where everything can run, a run with skipped tests fails."""

import os

import pytest


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if reporter else 0


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn success with skips into failure."""
    if exitstatus == pytest.ExitCode.OK and os.geteuid() == 0 and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so."""
    count = len(terminalreporter.stats.get("skipped", []))
    if count and os.geteuid() == 0:
        terminalreporter.write_line(f"{count} skipped: a skip is not a pass, so this run failed", red=True)
