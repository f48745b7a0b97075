"""What policies name of the host comes and goes: executables with packages, cgroups with services."""

from collections.abc import Callable
from typing import Any

from layer45.daemon_parts import Rules
from layer45.errors import Layer45Error


class Following:
    """Sees to it that rules and tagger know what is there now."""

    def __init__(self, rules: Rules, log: Any) -> None:
        self._rules = rules
        self._log = log
        self._failed: dict[str, str] = {}  # what could not be followed the last time, and why

    def look(self) -> None:
        """Once a second. What cannot be done is told once, and tried again the next time."""
        self._follow("cgroups", self._rules.find_cgroups, self._rules.missing_cgroups)
        self._follow("programs", self._rules.find_programs, self._rules.missing_programs)

    def tell_missing(self) -> None:
        """Those that the host does not have."""
        self._tell("cgroups", self._rules.missing_cgroups())
        self._tell("programs", self._rules.missing_programs())

    def _follow(self, what: str, find: Callable[[], bool], missing: Callable[[], list[str]]) -> None:
        try:
            found = find()
        except Layer45Error as error:
            if self._failed.get(what) != str(error):
                self._log.error(f"{what} that policies name cannot be followed", reason=str(error))
            self._failed[what] = str(error)
            return
        self._failed.pop(what, None)
        if found:
            self._log.info(f"{what} were found anew")
            self._tell(what, missing())

    def missing(self) -> list[str]:
        """A line for each that the host does not have."""
        return [
            *(
                f"cgroup {path}: is not there now, so nobody is in it"
                for path in self._rules.missing_cgroups()
            ),
            *(f"program {path}: is not there now" for path in self._rules.missing_programs()),
        ]

    def _tell(self, what: str, missing: list[str]) -> None:
        if missing:
            self._log.warning(f"{what} that policies name are missing", paths=",".join(missing))
