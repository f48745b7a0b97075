"""Commands of a live host: run, and what speaks to the daemon that `run` is."""

from pathlib import Path
from typing import Annotated, Any

import typer

from layer45.cli_options import DEFAULT_CONFIG, Config, Json


def run(
    config: Config = DEFAULT_CONFIG,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log JSON lines instead of key=value.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take over from the daemon that runs, if one does.")
    ] = False,
) -> None:
    """The root daemon, in the foreground.

    Rules, queues and chains live as long as it does. SIGTERM or SIGINT ends it, and leaves nothing behind but
    a file for the next one; SIGHUP reloads. It speaks sd_notify, watchdog included.
    """
    from layer45.service import run as run_service

    raise typer.Exit(run_service(config, log_json, replace))


def restart(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Let a new daemon take over from the one that runs.

    No packet is lost or passes as it is. For after an upgrade, and to change what layer45.toml says. If the
    new one cannot take over, the daemon goes on as it was, and the error is printed.
    """
    from layer45.output import print_json
    from layer45.restart import restart as restart_daemon

    done = restart_daemon(config)
    if as_json:
        print_json(done)
    else:
        print(f"pid {done['pid']} has taken over from pid {done['predecessor']}")


def exec_(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Name of an active policy.")],
    command: Annotated[list[str], typer.Argument(metavar="CMD", help="The program and its arguments.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Run a program under a policy.

    It runs in the policy's cgroup, with all it starts, and its exit status is ours. Needs root, for it moves
    the program into a cgroup; nothing else changes. To run CMD as somebody else: layer45 exec POLICY -- sudo
    -u USER CMD. Exit status 127: no such program; 126: it cannot be run.
    """
    from layer45.exec import execute

    raise typer.Exit(execute(config, policy, command))


def reload(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Make the daemon read its configuration again.

    On any error nothing changes, and the error is printed.
    """
    from layer45.control_messages import Reload
    from layer45.output import print_error, print_json

    done = ask_daemon(config, Reload())
    if as_json:
        print_json(done)
        return
    for warning in done["warnings"]:
        print_error(f"warning: {warning}")
    count = done["policies"]
    print(f"generation {done['generation']}: {count} {'policy' if count == 1 else 'policies'}")


def status(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """The daemon, its policies and queues."""
    from layer45.control_messages import Status
    from layer45.output import print_json
    from layer45.views import show_status

    (print_json if as_json else show_status)(ask_daemon(config, Status()))


def stats(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Every counter and ratio, with what it means."""
    from layer45.control_messages import Stats
    from layer45.output import print_json
    from layer45.views import show_stats

    (print_json if as_json else show_stats)(ask_daemon(config, Stats()))


def flows(
    config: Config = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Show at most so many.")] = 1000,
    as_json: Json = False,
) -> None:
    """Live flows: every 5-tuple that has state."""
    from layer45.control_messages import Flows
    from layer45.output import print_json
    from layer45.views import show_flows

    (print_json if as_json else show_flows)(ask_daemon(config, Flows(limit)))


def ask_daemon(config: Path, request: Any) -> Any:
    """What the daemon of a configuration answers. Raises Layer45Error."""
    from layer45.config import load_settings
    from layer45.control_client import ask

    return ask(Path(load_settings(config).control_socket), request, config)


COMMANDS = (run, exec_, reload, restart, status, flows, stats)
