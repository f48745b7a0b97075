"""Tells the service manager how the daemon is (sd_notify(3)). Without a manager, nothing happens."""

import os
import socket
import time


def notify(*assignments: str) -> None:
    """Sends assignments such as READY=1. A manager that cannot be reached is no reason to stop."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to_manager:
            to_manager.connect(address)
            to_manager.send("\n".join(assignments).encode())
    except OSError:
        pass


def notify_reloading() -> None:
    """A reload begins; READY=1 ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")


def feed_watchdog() -> None:
    """All is well; nothing happens where the manager does not watch."""
    if watchdog_interval_s():
        notify("WATCHDOG=1")


def watchdog_interval_s() -> float | None:
    """How often to send WATCHDOG=1: half of what the manager waits; None if it does not."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 2e6 or None
