"""The states of a daemon's policies: what the files say, and what commands have said since.

A command changes one policy's state in the running daemon, and no file. The next reload makes the files'
states hold again, and tells which ones it so forgets.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["active", "standby", "deprecated", "revoked"]  # a file knows all but the last
Command = Literal["activate", "deactivate", "deprecate", "revoke"]
STATES: Mapping[Command, State] = {
    "activate": "active",
    "deactivate": "standby",
    "deprecate": "deprecated",
    "revoke": "revoked",
}


@dataclass(frozen=True)
class Standing:
    """A policy's state, since when it has it, in seconds of the clock, and who said so."""

    state: State
    since: float
    source: Literal["file", "command"]


class LifeCycle:
    """Every policy's standing in one daemon."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}

    @property
    def standings(self) -> Mapping[str, Standing]:
        """Every policy's, by name."""
        return self._standings

    def restore(self, standings: Mapping[str, Standing]) -> None:
        """What another daemon left."""
        self._standings = dict(standings)

    def with_commands(self, states: Mapping[str, State]) -> dict[str, State]:
        """The files' states, but for policies of which a command has said another."""
        said = {name: each.state for name, each in self._standings.items() if each.source == "command"}
        return {name: said.get(name, state) for name, state in states.items()}

    def follow_heritage(self, states: Mapping[str, State]) -> None:
        """These hold now; who is in a state that it had has it as before."""
        old, now = self._standings, time.time()
        self._standings = {
            name: old[name] if name in old and old[name].state == state else Standing(state, now, "file")
            for name, state in states.items()
        }

    def follow_files(self, states: Mapping[str, State]) -> list[str]:
        """The files' states hold. One line for each state by command that is none any more."""
        old, now = self._standings, time.time()
        self._standings = {
            name: Standing(state, _since(old.get(name), state, now), "file") for name, state in states.items()
        }
        return [
            _forgotten(name, standing, states.get(name))
            for name, standing in old.items()
            if standing.source == "command" and standing.state != states.get(name)
        ]

    def follow_command(self, name: str, state: State) -> None:
        """A command has changed a policy's state."""
        self._standings[name] = Standing(state, time.time(), "command")

    def describe(self, name: str) -> dict[str, Any]:
        """As `layer45 status --json` has it."""
        standing = self._standings[name]
        return {
            "state": standing.state,
            "state_since": iso(standing.since),
            "state_source": standing.source,
        }


def _since(old: Standing | None, state: State, now: float) -> float:
    return old.since if old and old.state == state else now


def _forgotten(name: str, standing: Standing, state: State | None) -> str:
    files = f"the files say {state}" if state else "the files do not have it any more"
    return f'policy "{name}" was {standing.state} by command since {iso(standing.since)}; {files}'


def iso(seconds: float) -> str:
    """A moment, in seconds of the clock, as everything that is shown has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
