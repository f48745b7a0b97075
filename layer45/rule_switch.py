"""Rules for the daemon and for `layer45 rules`: one backend chosen once, every error one of ours."""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from layer45.config import Settings, load_settings
from layer45.errors import Layer45Error
from layer45.loader import load, owner_name
from layer45.lock import DaemonLock
from layer45.rules import backend, cgroups, conntrack
from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.kernel_chain import NOBODYS_QUEUE, NoKernel
from layer45.rules.kernel_chains import Counted, KernelChains
from layer45.rules.known import KnownConnections
from layer45.rules.socket_end import end_sockets
from layer45.rules.tagger import Tagger
from layer45.start_checks import queue_is_read

P = ParamSpec("P")
R = TypeVar("R")


def _told(work: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    try:
        return work(*arguments, **options)
    except RulesError as error:
        raise Layer45Error(str(error)) from None


class RuleSwitch:
    """The rules of one daemon. install replaces in one step; remove is no error when there are none."""

    def __init__(self, settings: Settings) -> None:
        self.name = _told(backend.choose, settings.backend)
        self._auto = settings.backend == "auto"
        self._installed = ""
        self._plan: RulePlan | None = None  # of the rules that stand
        self._cgroups: dict[str, int | None] = {}
        self._tagger = Tagger()
        self._known = KnownConnections()
        self._kernel = KernelChains()
        self.no_kernel = NoKernel()

    def present(self, owner: str) -> bool:
        """Whether rules of this owner are in this network namespace."""
        return _told(backend.installed, owner)

    def adopt(self, owner: str) -> None:
        """Takes over the map of a daemon that runs, if it has one. Raises Layer45Error."""
        _told(self._known.adopt, owner)

    def prepare(self, plan: RulePlan) -> int:
        """What the plan's rules ask besides the packet: the map of known connections, for the engine to fill.

        Its descriptor, which stays ours; -1: none is needed. Raises Layer45Error.
        """
        return _told(self._known.prepare, plan)

    def install(self, plan: RulePlan) -> None:
        """What was prepared for the plan must be there. Raises Layer45Error, and then nothing has changed."""
        self._choose(plan)
        found = _told(cgroups.versions, plan)
        if self._plan is None:
            conntrack.trust(plan.marks.class_mask)
        self._install(plan)
        before, self._plan = self._plan, plan
        self._installed, self._cgroups = self.name, found
        _told(self._known.settle, plan)
        _told(self._kernel.settle, plan)
        self._take_back(plan, before)

    def _take_back(self, plan: RulePlan, before: RulePlan | None) -> None:
        """Flows that left by the word of a chain that is another now, or to another daemon, come again."""
        if plan.letting_go != (before.letting_go if before else {}):
            conntrack.clear(plan.marks.exempt_bit, lambda mark: not plan.stays(mark, before))

    def _choose(self, plan: RulePlan) -> None:
        """What stands is kept where it will do, whoever put it in: a hook that goes takes packets along."""
        if self._auto and plan.asks_map:
            self.name = _told(backend.choose_for, plan)
        elif self._auto and plan.in_kernel and not self._installed and self.name != "iptables":
            self.name = backend.standing(plan.owner) or _told(backend.choose_for, plan)

    def _install(self, plan: RulePlan) -> None:
        """Where the kernel does not take rules for its chains, without those that mark, then without any."""
        self.no_kernel = NoKernel(all=self._unprepared(plan))
        while not self._taken(plan.but(self.no_kernel)):
            pass

    def _taken(self, plan: RulePlan) -> bool:
        """False: less is to be tried. Raises Layer45Error where nothing is left out that could be."""
        try:
            _told(backend.install, plan, self.name, self._installed == self.name)
        except Layer45Error as error:
            if not plan.in_kernel:
                raise
            self.no_kernel = self.no_kernel.refused(plan.kernel_marks, str(error))
            return False
        return True

    def _unprepared(self, plan: RulePlan) -> str:
        """Why the rules cannot ask it for chains; empty: they can, or need not."""
        if not plan.in_kernel:
            return ""
        if self.name != "iptables":
            return f"backend {self.name} has no BPF match"
        if plan.kernel_drops and queue_is_read(NOBODYS_QUEUE):
            return f"a program reads queue {NOBODYS_QUEUE}, which is to be nobody's"
        try:
            self._kernel.prepare(plan)
        except RulesError as error:
            return str(error)
        return ""

    def kernel_counted(self) -> Counted:
        """What chains that the kernel runs have counted. Raises Layer45Error."""
        return _told(self._kernel.counted)

    def divert_nothing(self, plan: RulePlan) -> None:
        """The hooks stay; customized connections are closed, and dropped from now on. Raises Layer45Error."""
        nothing = replace(plan, diversions=(), ending=self._known.opened, forgets=False)
        self.prepare(nothing)
        self.install(nothing)

    def end(self, keys: Collection[bytes]) -> int:
        """Closes the TCP connections with these keys; how many there were."""
        return end_sockets(keys).closed

    def end_lost(self, live: Callable[[], Collection[bytes]]) -> int:
        """Closes customized connections that are in the map, but not among the live ones' keys; how many."""
        return self._known.end_others(live).closed

    def let_go(self) -> None:
        """Of what is this process's: rules and the map's names are another's now. Sockets keep their tags."""
        self._tagger.close()
        self._kernel.close()
        self._known.close()

    def remove(self, owner: str) -> None:
        """Raises Layer45Error."""
        self._known.close()
        self._kernel.close()
        _told(backend.remove, owner)

    def release(self, owner: str) -> None:
        """Undoes prepare where no rules came of it. Raises Layer45Error."""
        if (self._known.opened or self._kernel.opened) and not self.present(owner):
            self.remove(owner)

    def tag(self, plan: RulePlan) -> tuple[bool, str]:
        """Tags sockets as they are made. Whether that works, and why not, or not for all."""
        try:
            return True, self._tagger.apply(plan)
        except RulesError as error:
            return False, str(error)

    def find_programs(self) -> bool:
        """Whether an executable that a policy names has come, gone or is another file now; sockets are tagged
        accordingly from here on. Raises Layer45Error."""
        return _told(self._tagger.refresh)

    def find_cgroups(self) -> bool:
        """Whether a cgroup that a policy names has come, gone or been made anew; rules and tags follow.

        Raises Layer45Error.
        """
        if self._plan is None or self._cgroups == _told(cgroups.versions, self._plan):
            return False
        self.install(self._plan)
        self.tag(self._plan)
        return True

    def missing_cgroups(self) -> list[str]:
        """Cgroups that policies name, but the host does not have."""
        return [path for path, identity in self._cgroups.items() if identity is None]

    def missing_programs(self) -> list[str]:
        """Executables that policies name, but the host does not have."""
        return self._tagger.missing

    def untag(self) -> None:
        """Sockets keep the tags they have."""
        self._tagger.close()


@dataclass(frozen=True)
class Rendered:
    """Rules as text."""

    backend: str
    owner: str
    text: str


def render_rules(directory: Path, name: str = "") -> Rendered:
    """The rules a configuration needs. name: of a backend; empty: the configured one. Raises Layer45Error."""
    plan = load(directory)
    chosen = _told(backend.choose_for, plan.rules, name or plan.settings.backend)
    return Rendered(chosen, plan.rules.owner, _told(backend.render, plan.rules, chosen))


def remove_rules(directory: Path) -> None:
    """Takes out what a killed daemon left: rules and control socket. Policies are not read: they may be
    broken.

    Raises Layer45Error, also while a daemon runs.
    """
    if os.geteuid() != 0:
        raise Layer45Error("removing rules needs root; run: sudo layer45 rules --remove")
    settings = load_settings(directory)
    with DaemonLock(Path(settings.control_socket)):
        _told(backend.remove, owner_name(settings))
        Path(settings.control_socket).unlink(missing_ok=True)
