"""The daemon's life: what is started in which order, how a reload switches, and what is undone at the end.

    start:   plan → lock → cgroups → map → engine (queues bound, chains published) → rules → tagger
             → sockets that are open (apply_now); in the place of a predecessor, too, see handover.py
    reload:  plan → chains → cgroups → map → engine.apply → rules → engine.retire → tagger
             → sockets that are open; a change of a policy's state, and the first program that a policy's
             `exec` starts, too
    stop:    tagger → rules that divert nothing → engine (emptied, closed) → no rules, no map → cgroups → lock

Rules come after the queues they lead to and go before them: no packet is sent to a queue that nobody reads.
All methods run in one thread at a time; service.py sees to it.
"""

import os
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layer45.apply_now import apply_now
from layer45.attach import Done, attach, detach
from layer45.cgroups import Cgroups
from layer45.control_messages import MOST_FLOWS
from layer45.daemon_parts import Engine, Parts, Rules
from layer45.disabling import Disabling
from layer45.errors import Layer45Error
from layer45.first_plan import first_plan
from layer45.following import Following
from layer45.handover import Predecessor
from layer45.inheritance import Inheritance, inheritance_path, left_by, write_inheritance
from layer45.kernel_stats import KERNEL_HELP, with_kernel
from layer45.life_cycle import STATES, Command, LifeCycle, iso
from layer45.loader import Plan, with_exec, with_states, without_versions
from layer45.lock import DaemonLock
from layer45.named_policy import require_active, require_policy
from layer45.namespace import network_namespace
from layer45.notices import Notices
from layer45.old_versions import OldVersions
from layer45.policy_states import POLICY_HELP, policy_states
from layer45.privileges_view import described
from layer45.sockets import SocketView
from layer45.start_checks import check_privileges, check_processors, check_queues_free, check_settings

UNKNOWN = -1


class Daemon:
    """One daemon, of one configuration directory, in one network namespace."""

    def __init__(self, directory: Path, parts: Parts, log: Any) -> None:
        self.directory = directory.absolute()
        self.generation = 0
        self._parts = parts
        self._log = log
        self._undo = ExitStack()
        self._started = time.time()
        self._tagged = True, ""  # whether sockets are, and why not, or not all
        self._last_reload: dict[str, Any] | None = None
        self._notices = Notices()
        self._life_cycle = LifeCycle()
        self._old_versions = OldVersions()
        self._lost = 0  # connections, so far; or UNKNOWN
        self.plan: Plan
        self._engine: Engine
        self._rules: Rules
        self._cgroups: Cgroups
        self._disabling: Disabling
        self._following: Following

    # ---- life

    def start(self, predecessor: Predecessor | None = None) -> None:
        """Everything, or nothing: on Layer45Error all that was done before is undone.

        predecessor: the daemon that runs, in whose place this one starts; on Layer45Error it goes on.
        """
        check_privileges()
        started, remarks = first_plan(
            self.directory, self._parts.load, self._life_cycle, predecessor, self._log
        )
        settings = started.settings
        check_processors(self.directory, settings)
        with ExitStack() as undo:
            self._lock = predecessor.lock if predecessor else DaemonLock(Path(settings.control_socket))
            undo.enter_context(self._lock)
            self._cgroups = self._parts.cgroups(settings.cgroup_root)
            undo.callback(self._cgroups.close)
            plan = with_exec(started, self._cgroups.populated(started.policies))
            self._prepare_cgroups(plan)
            self._rules = self._parts.rules(plan.settings)
            self._following = Following(self._rules, self._log)
            check_queues_free(plan)
            undo.callback(self._rules.release, plan.rules.owner)
            if predecessor:
                self._rules.adopt(plan.rules.owner)
            known = self._rules.prepare(plan.rules)
            if predecessor is None:
                self._take_over(plan)
            self._engine = self._parts.engine(plan.settings)
            self._disabling = Disabling(plan.settings.error_threshold, self._log)
            undo.callback(self._engine.stop)
            self._engine.apply(plan, known)
            undo.callback(self._take_down, plan, predecessor)
            self._rules.install(plan.rules)
            undo.callback(self._rules.untag)
            self._tag(plan)
            if predecessor:
                predecessor.dismiss()
                self._lock.name_holder()
                self._lost = UNKNOWN  # the predecessor's are looked for at once
            self._adopt(plan, remarks)
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """Undoes the start. A step that fails does not keep the others from being done."""
        self._undo.close()

    def hand_over(self) -> None:
        """A successor is in charge: the stop undoes only what is this process's, its queues above all."""
        self._undo.pop_all()
        for step in (self._lock.leave, self._cgroups.close, self._rules.let_go, self._engine.stop):
            self._undo.callback(step)

    def take_back(self) -> None:
        """A successor that began to take over is gone."""
        self._rules.install(self.plan.rules)
        self._tag(self.plan)
        self._leave()

    def inheritance(self) -> Inheritance:
        """What a successor needs to know."""
        return left_by(self.plan, self._life_cycle.standings)

    @property
    def lock(self) -> DaemonLock:
        """While it runs."""
        return self._lock

    def _leave(self) -> None:
        """Writes down what the next daemon needs to know, however this one ends."""
        path = inheritance_path(self.plan.settings.control_socket)
        problem = write_inheritance(path, left_by(self.plan, self._life_cycle.standings))
        if problem:
            self._log.warning(problem)

    def _take_over(self, plan: Plan) -> None:
        """A killed predecessor's rules become ours in one step, before our queues open.

        Until they do, the kernel does with a queue that nobody reads what on_failure says, so closed policies
        stay closed; and the new queues never see packets that the old rules numbered. Removing the old rules
        first would open a gap.
        """
        if self._rules.present(plan.rules.owner):
            self._log.warning("taking over the rules of a daemon that was killed", owner=plan.rules.owner)
            self._rules.install(plan.rules)

    def _take_down(self, plan: Plan, predecessor: Predecessor | None) -> None:
        """Diverts nothing any more, empties and closes the queues, and only then removes the rules.

        While there is a predecessor, it gets its packets back, and the rules are its.

        With the last rule goes the hook it stands in, and when a hook goes, the kernel drops every packet
        that waits in any queue of the namespace (nf_queue_nf_hook_drop).
        """
        if predecessor and not predecessor.dismissed:
            predecessor.give_back(str(sys.exception() or "it ended"))
            return
        with ExitStack() as steps:
            steps.callback(self._rules.remove, plan.rules.owner)
            steps.callback(self._engine.stop)
            self._rules.divert_nothing(plan.rules)

    def reload(self) -> dict[str, Any]:
        """Reads the configuration again and switches to it. On Layer45Error everything is as it was."""
        try:
            plan = self._parts.load(self.directory, self.plan)
            check_settings(self.directory, self.plan.settings, plan.settings)
            self._switch(plan)
        except Layer45Error as error:
            self._last_reload = {"time": time.time(), "ok": False, "problems": str(error).splitlines()}
            self._log.error("reload failed; nothing changed", problems=str(error).splitlines())
            raise
        self._last_reload = {"time": time.time(), "ok": True, "problems": []}
        self._disabling.put_back(self._engine)
        warnings = [*plan.warnings, *self._life_cycle.follow_files(plan.states)]
        self._adopt(plan, warnings)
        warnings += self._following.missing()  # which were told in the log
        return {"generation": self.generation, "policies": len(plan.newest), "warnings": warnings}

    def change_state(self, name: str, command: Command) -> dict[str, Any]:
        """One policy's state, until it is changed again or the configuration is read again.

        The files are not looked at. On Layer45Error everything is as it was.
        """
        require_policy(self.plan, name)
        state, before = STATES[command], self.plan
        changes = before.states[name] != state
        if changes:
            try:
                plan = with_states(before, {**before.states, name: state})
                self._switch(plan)
            except Layer45Error as error:
                problems = str(error).splitlines()
                self._log.error("state not changed", policy=name, state=state, problems=problems)
                raise
            self._life_cycle.follow_command(name, state)
            self._log.info("state changed", policy=name, state=state, before=before.states[name])
            self._adopt(plan, [each for each in plan.warnings if each not in before.warnings])
        back = self._disabling.put_back(self._engine, name)
        changed = changes or back
        return {"policy": name, "state": state, "generation": self.generation, "changed": changed}

    def end_old_versions(self) -> None:
        """Versions that no flow has any more go. Raises Layer45Error, and then they stay."""
        over = self._old_versions.over(self.plan, self._chain_stats)
        if over:
            plan = without_versions(self.plan, over)
            self._switch(plan)
            self._log.info("old versions are over", versions=",".join(over))
            self._adopt(plan, ())

    def _switch(self, plan: Plan) -> None:
        """New queues and chains first, then the rules that lead to them, then the old queues go."""
        self._engine.build(plan)  # first of all: a module that refuses must find everything as it was
        with ExitStack() as undo:
            undo.callback(self._keep_cgroups, self.plan)
            self._prepare_cgroups(plan)
            undo.callback(self._back_to, self.plan)
            self._engine.apply(plan, self._rules.prepare(plan.rules))
            self._rules.install(plan.rules)  # one transaction: all or nothing
            undo.pop_all()
        self._engine.retire()
        self._keep_cgroups(plan)
        self._tag(plan)

    def _tag(self, plan: Plan) -> None:
        """Without it servers' first packets and programs are missed: that is no reason not to run."""
        self._tagged = on, reason = self._rules.tag(plan.rules)
        if reason:
            self._log.warning(f"{'some ' if on else ''}sockets are not tagged", reason=reason)
        self._following.tell_missing()
        self._apply_now(plan)

    def _apply_now(self, plan: Plan) -> None:
        """Sockets that were open before; behind the tagger, so that none is made between the two."""
        done = apply_now(plan.rules, [each.policy.name for each in plan.chains if each.policy.apply_now])
        for problem in done.problems:
            self._log.warning("open sockets are not tagged", reason=problem)
        if done.sockets:
            self._log.info("open sockets are tagged", processes=done.processes, sockets=done.sockets)

    def follow_host(self) -> None:
        """What policies name of the host comes and goes."""
        self._following.look()

    def _back_to(self, plan: Plan) -> None:
        self._engine.apply(plan, self._rules.prepare(plan.rules))
        self._engine.retire()

    def _adopt(self, plan: Plan, warnings: Iterable[str]) -> None:
        self.plan = plan
        self.generation += 1
        self._notices.follow(plan.chains)
        self._leave()
        for warning in warnings:
            self._log.warning(warning)
        names = ",".join(chain.name for chain in plan.chains)
        self._log.info("in effect", generation=self.generation, policies=names, rules=self._rules.name)

    def _prepare_cgroups(self, plan: Plan) -> None:
        for name in _executed(plan):
            self._cgroups.prepare(name)

    def _keep_cgroups(self, plan: Plan) -> None:
        self._cgroups.keep_only(_executed(plan))

    # ---- questions

    def prepare_exec(self, name: str) -> dict[str, Any]:
        """The cgroup of a policy's programs, made if somebody removed it, and rules for it.

        Raises Layer45Error.
        """
        require_active(self.plan, name)
        if name not in self.plan.executed:
            plan = with_exec(self.plan, {*self.plan.executed, name})
            self._switch(plan)
            self.plan = plan
        cgroup = self._cgroups.prepare(name)
        self._rules.find_cgroups()  # it may be a new one: rules know it before its program starts
        return {"cgroup": cgroup, "namespace": network_namespace()}

    def attach(self, name: str, pid: int) -> dict[str, Any]:
        """Open sockets of a process get the policy, if it selects them. Raises Layer45Error."""
        require_active(self.plan, name)
        return self._tell_attached("attached", attach(self.plan.rules, name, pid))

    def detach(self, name: str, pid: int) -> dict[str, Any]:
        """Open sockets of a process lose the policy. Raises Layer45Error."""
        require_active(self.plan, name)
        return self._tell_attached("detached", detach(self.plan.rules, name, pid))

    def _tell_attached(self, event: str, done: Done) -> dict[str, Any]:
        if not done.note:
            self._log.info(
                event, policy=done.policy, pid=done.pid, program=done.program, sockets=done.sockets
            )
        return done.told()

    def status(self) -> dict[str, Any]:
        """What `layer45 status --json` prints."""
        rules = self._rules
        return {
            "pid": os.getpid(),
            "started": iso(self._started),
            "uptime_s": round(time.time() - self._started, 1),
            "generation": self.generation,
            "config": str(self.directory),
            "control_socket": self.plan.settings.control_socket,
            "namespace": network_namespace(),
            "policies": policy_states(self.plan, self._standing, self._chain_stats(), rules.no_kernel),
            "queues": self._engine.status().get("queues", []),
            "rules": {"backend": rules.name, "owner": self.plan.rules.owner},
            "tagger": dict(zip(("on", "reason"), self._tagged, strict=True)),
            "last_reload": self._last_reload,
            "privileges": described(),
            "warnings": [*self.plan.warnings, *self._following.missing()],
        }

    def _counted(self) -> dict[str, Any]:
        """By engine and kernel; see Engine.stats and kernel_stats.py."""
        rules = self._rules
        return with_kernel(self._engine.stats(), self.plan.chains, rules.kernel_counted(), rules.no_kernel)

    def _chain_stats(self) -> dict[str, Any]:
        return dict(self._counted().get("policies", {}))

    def _standing(self, name: str) -> dict[str, Any]:
        return {**self._life_cycle.describe(name), "disabled": self._disabling.describe(name)}

    def stats(self) -> dict[str, Any]:
        """Every counter and ratio, with help: by its name, a module's by MODULE.NAME. See Engine.stats."""
        stats, own = self._counted(), {**POLICY_HELP, **KERNEL_HELP}
        return {**stats, "help": {**stats.get("help", {}), **own, **self._module_help()}}

    def _module_help(self) -> dict[str, str]:
        manifests = [instance.module.manifest for chain in self.plan.chains for instance in chain.instances]
        return {f"{each.name}.{name}": text for each in manifests for name, text in each.helps.items()}

    def flows(self, limit: int) -> list[dict[str, Any]]:
        """Live flows."""
        return self._engine.flows(limit)

    def sockets(self, everything: bool) -> list[dict[str, Any]]:
        """Sockets that policies have, or all; see sockets.py. Raises Layer45Error."""
        return self._sockets().listing(everything)

    def explain(self, pid: int | None, address: str | None) -> list[dict[str, Any]]:
        """Sockets of a process or at an address, with each policy's answer. Raises Layer45Error."""
        if (pid is None) == (address is None):
            raise Layer45Error("expected a process or a socket to explain")
        return self._sockets().of_address(address) if address else self._sockets().of_process(pid or 0)

    def _sockets(self) -> SocketView:
        return SocketView(self.plan, self._engine.flows(MOST_FLOWS))

    def tell_notices(self) -> None:
        """Logs each counter with notice = true that is above 0, once in the life of its chain."""
        if not self._notices:
            return
        for each in self._notices.take(self._chain_stats()):
            self._log.warning("a module has something to tell", **asdict(each))

    def look_for_failures(self) -> None:
        """Disables policies whose chain fails too often."""
        self._disabling.look(self._engine, self._rules.end)

    def end_lost_connections(self) -> None:
        """Closes what the engine has forgotten while it lived: nobody can translate it any more."""
        lost = self._engine.lost()
        if lost == self._lost:
            return
        self._lost = lost
        closed = self._rules.end_lost(self._engine.customized)
        if closed:
            self._log.warning("customized connections were forgotten, and are closed", connections=closed)

    def fault(self) -> str:
        """What makes going on pointless: a queue whose thread has died; else empty. From any thread."""
        dead = self._engine.dead_queue()
        return "" if dead is None else f"the worker of queue {dead} has died"


def _executed(plan: Plan) -> set[str]:
    """The policies whose cgroups the rules ask for."""
    return {chain.policy.name for chain in plan.chains} & plan.executed
