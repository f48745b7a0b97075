"""Commands about sockets: which policy they have and why, and how open ones come to have another."""

from typing import Annotated, Any

import typer

from layer45.cli_live import ask_daemon
from layer45.cli_options import DEFAULT_CONFIG, Config, Json
from layer45.control_messages import LAST_PID

Policy = Annotated[str, typer.Argument(metavar="POLICY", help="Name of an active policy.")]
Pid = Annotated[int, typer.Option("--pid", min=1, max=LAST_PID, help="The process whose sockets they are.")]


def attach(policy: Policy, pid: Pid, config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Give a policy to a process's open sockets.

    As if it made them now: the policy's match must select the process. TCP connections stay as they are.
    """
    from layer45.control_messages import Attach

    _show(ask_daemon(config, Attach(policy, pid)), "tagged", as_json)


def detach(policy: Policy, pid: Pid, config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Take a policy from a process's open sockets.

    It must be one that asks for programs. Sockets that the process makes later have it again. TCP connections
    stay as they are.
    """
    from layer45.control_messages import Detach

    _show(ask_daemon(config, Detach(policy, pid)), "let go", as_json)


def _show(done: dict[str, Any], what: str, as_json: bool) -> None:
    from layer45.output import print_json
    from layer45.views_sockets import show_attached

    if as_json:
        print_json(done)
    else:
        show_attached(done, what)


COMMANDS = (attach, detach)
