"""Which network namespace this process is in."""

from pathlib import Path

OF_THIS_PROCESS = Path("/proc/self/ns/net")


def network_namespace() -> int:
    """Its number, as in `ip netns` and /proc/PID/ns/net."""
    return OF_THIS_PROCESS.stat().st_ino
