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


def sockets(
    config: Config = DEFAULT_CONFIG,
    everything: Annotated[
        bool, typer.Option("--all", help="All of the daemon's network namespace, and why.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Sockets that policies have; --all: why others do not.

    POLICY with a question mark: it has some of the socket's packets, by their addresses. TAG: the policies
    whose owner keys (user, group, cgroup, program) held when the socket was made, or was attached.
    """
    from layer45.control_messages import Sockets
    from layer45.output import print_json
    from layer45.views_sockets import show_sockets

    found = ask_daemon(config, Sockets(everything))
    if as_json:
        print_json(found)
    else:
        show_sockets(found, everything)


def explain(
    pid: Annotated[
        int | None, typer.Option("--pid", min=1, max=LAST_PID, help="Every socket of this process.")
    ] = None,
    socket: Annotated[
        str | None, typer.Option("--socket", metavar="PROTO/LOCAL[/REMOTE]", help="Such as tcp/10.0.0.1:80.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Why a socket has a policy, or none.

    Policy by policy, highest priority first: the first key that does not hold, its value, and what the policy
    expects. Addresses as `layer45 sockets` writes them: udp/*:53, tcp/[fd00::1]:80/[fd00::2]:4711.
    """
    from layer45.control_messages import Explain
    from layer45.output import print_json
    from layer45.socket_flows import read_address
    from layer45.views_sockets import show_explained

    if (pid is None) == (socket is None):
        raise typer.BadParameter("expected either --pid or --socket")
    try:
        read_address(socket or "udp/*:*")
    except ValueError as error:
        raise typer.BadParameter(f"{socket}: {error}") from None
    found = ask_daemon(config, Explain(pid, socket))
    (print_json if as_json else show_explained)(found)


COMMANDS = (attach, detach, sockets, explain)
