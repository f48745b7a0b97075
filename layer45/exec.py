"""`layer45 exec`: this process moves into a policy's cgroup, and becomes the program."""

import os
import signal
import sys
from pathlib import Path

from layer45 import cgroups
from layer45.config import load_settings
from layer45.control_client import ask
from layer45.control_messages import ExecPrepare
from layer45.errors import Layer45Error
from layer45.namespace import network_namespace
from layer45.output import print_error

CANNOT_RUN = 126
NOT_FOUND = 127


def execute(configuration: Path, policy: str, command: list[str]) -> int:
    """Does not return when the program runs; else the exit status a shell would give. Raises Layer45Error."""
    socket = Path(load_settings(configuration).control_socket)
    prepared = ask(socket, ExecPrepare(policy), configuration)
    if prepared["namespace"] != network_namespace():
        raise Layer45Error(
            f"{socket}: that daemon is in another network namespace: its rules would not see the program"
        )
    cgroups.enter(prepared["cgroup"])
    sys.stdout.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a program would inherit that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print_error(f"{command[0]}: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
