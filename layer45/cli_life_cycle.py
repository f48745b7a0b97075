"""Commands that change one policy's state in the running daemon. No file changes; a reload undoes them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layer45.cli_live import ask_daemon
from layer45.cli_options import DEFAULT_CONFIG, Config, Json

if TYPE_CHECKING:
    from layer45.life_cycle import Command

Policy = Annotated[str, typer.Argument(metavar="POLICY", help="Name of a policy that the daemon has read.")]


def activate(policy: Policy, config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Put a policy into effect until the next reload.

    Flows that are open get it too, but for TCP connections: these keep to their end what they began with.
    """
    _change(policy, "activate", config, as_json)


def deactivate(policy: Policy, config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Put a policy on standby until the next reload.

    What comes of its flows is treated as if it was not there. Customized TCP connections are closed.
    """
    _change(policy, "deactivate", config, as_json)


def deprecate(policy: Policy, config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Keep a policy from new flows until the next reload.

    Flows that have it keep it.
    """
    _change(policy, "deprecate", config, as_json)


def revoke(policy: Policy, config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Take a policy away until the next reload.

    As deactivate; but where it has on_failure = "closed", what comes of its flows is dropped.
    """
    _change(policy, "revoke", config, as_json)


def _change(policy: str, how: "Command", config: Path, as_json: bool) -> None:
    from layer45.control_messages import ChangeState
    from layer45.output import print_json

    done = ask_daemon(config, ChangeState(policy, how))
    if as_json:
        print_json(done)
        return
    already = "" if done["changed"] else "already "
    print(f"{done['policy']}: {already}{done['state']}, generation {done['generation']}")


COMMANDS = (activate, deactivate, deprecate, revoke)
