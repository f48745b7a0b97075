"""Which network namespace this process is in."""

from pathlib import Path

from layer45.rules.process_sockets import own_cookie

OF_THIS_PROCESS = Path("/proc/self/ns/net")


def network_namespace() -> int:
    """Its number, as in `ip netns` and /proc/PID/ns/net."""
    return OF_THIS_PROCESS.stat().st_ino


def namespace_identity() -> str:
    """What no other namespace has until the next boot; where the kernel has no such thing, its number."""
    try:
        return f"cookie {own_cookie()}"
    except OSError:  # before Linux 5.14
        return f"number {network_namespace()}"
