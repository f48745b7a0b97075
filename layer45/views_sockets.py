"""Sockets and what became of them, as text."""

from typing import Any


def show_attached(done: dict[str, Any], what: str) -> None:
    """attach, detach: one line, and one more for each thing that was left alone."""
    if done["note"]:
        print(done["note"])
        return
    of = f"of {done['program']} (pid {done['pid']})"
    print(f"{done['policy']}: {_counted(done['sockets'], 'socket')} {of} {what}")
    if done["connections"]:
        print(f"kept as it was: {_counted(done['connections'], 'TCP connection')} among them")
    if done["elsewhere"]:
        print(f"left alone: {_counted(done['elsewhere'], 'socket')} in other network namespaces")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
