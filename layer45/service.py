"""`layer45 run`: the daemon in the foreground, with its signals, its control socket and the service manager's
wishes.

The event loop has the main thread. All work on the daemon runs in one other thread, so its methods never
meet.
"""

import asyncio
import gc
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from layer45.config import load_settings
from layer45.control import ControlServer, hang_up
from layer45.control_messages import (
    Attach,
    ChangeState,
    Detach,
    ExecPrepare,
    Explain,
    Flows,
    GivenBack,
    Reload,
    Request,
    Restart,
    Sockets,
    Stats,
    Status,
    TakenOver,
    TakeOver,
)
from layer45.daemon import Daemon
from layer45.daemon_parts import Parts
from layer45.errors import Layer45Error
from layer45.handover import Predecessor, find_predecessor
from layer45.life_cycle import Command
from layer45.notify import feed_watchdog, notify, notify_reloading, watchdog_interval_s
from layer45.privileges import problems
from layer45.successor import Successor

HEALTH_INTERVAL_S = 1.0
GARBAGE_THRESHOLD = 100_000  # new objects between two looks: most of a reload stay as long as its plan
LONGEST_WORK_S = 300.0  # for a request, before the watchdog may think that it hangs
TAKE_OVER_LIMIT_S = 8.0
CHANGES = (Reload, ChangeState, Attach, Detach, ExecPrepare, Restart, TakeOver)


def run(directory: Path, as_json: bool, replace: bool = False) -> int:
    """Runs until a signal ends it. The exit status. Raises Layer45Error when it cannot start.

    replace: a daemon of the same configuration that runs is asked to hand over.
    """
    from layer45.faults import tell_faults
    from layer45.logs import open_log
    from layer45.parts import real_parts
    from layer45.privileges import begin

    begin()
    gc.set_threshold(GARBAGE_THRESHOLD)
    log = open_log(as_json)
    tell_faults(lambda line: log.error("module failed", fault=line))
    return asyncio.run(Service(directory, real_parts(), log, replace).run())


class Service:
    """A daemon and all that moves it."""

    def __init__(self, directory: Path, parts: Parts, log: Any, replace: bool = False) -> None:
        self._log = log
        self._replace = replace
        self._predecessor: Predecessor | None = None
        self._server: ControlServer
        self._daemon = Daemon(directory, parts, log)
        self._keep_least = parts.keep_least
        self._successor = Successor(self._daemon, parts.start_daemon, log)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="layer45-control")
        self._end = asyncio.Event()
        self._fault = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._working_since: float | None = None  # on a request, in the control thread

    async def run(self) -> int:
        """Start, wait for the end, stop."""
        self._loop = loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self._reload()))
        try:
            await loop.run_in_executor(self._worker, self._start)
            try:
                await loop.run_in_executor(self._worker, self._keep_least, "control")
                await self._serve()
            finally:
                if not self._successor.in_charge:
                    notify("STOPPING=1", "STATUS=stopping")
                await loop.run_in_executor(self._worker, self._daemon.stop)
        finally:
            self._worker.shutdown()
        self._log.info("handed over" if self._successor.in_charge else "stopped")
        if self._fault:
            raise Layer45Error(self._fault)
        return 0

    def _start(self) -> None:
        """In the worker thread."""
        if self._replace:
            self._predecessor = find_predecessor(Path(load_settings(self._daemon.directory).control_socket))
        if self._predecessor is None:
            self._daemon.start()
            return
        with self._predecessor:
            self._predecessor.begin()
            self._daemon.start(self._predecessor)

    async def _serve(self) -> None:
        path = Path(self._daemon.plan.settings.control_socket)
        self._server = server = ControlServer(path, self._answer, self._worker, self._log)
        await server.open(self._predecessor.listener if self._predecessor else None)
        try:
            self._keep_least("main")
            for problem in problems():
                self._log.warning("a thread is less confined than it could be", reason=problem)
            self._log.info("ready", control_socket=str(path), config=str(self._daemon.directory))
            notify("READY=1", self._summary())
            self._begin(self._watch())
            await self._end.wait()
            await self._let_successor_decide()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await hang_up(server)

    async def _let_successor_decide(self) -> None:
        """One that takes over right now is in charge in a moment, or not: so the rules are one daemon's."""
        until = time.monotonic() + TAKE_OVER_LIMIT_S
        while self._successor.busy and not self._successor.in_charge and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer(self, request: Request) -> object:
        """In the control thread."""
        if isinstance(request, CHANGES):
            self._successor.refuse_changes()
        self._working_since = time.monotonic()
        try:
            return self._do(request)
        finally:
            self._working_since = None

    def _do(self, request: Request) -> object:
        match request:
            case Status():
                return {**self._daemon.status(), "successor": self._successor.status()}
            case Stats():
                return self._daemon.stats()
            case Flows(limit=limit):
                return self._daemon.flows(limit)
            case ExecPrepare(policy=policy):
                return self._daemon.prepare_exec(policy)
            case Attach(policy=policy, pid=pid):
                return self._daemon.attach(policy, pid)
            case Detach(policy=policy, pid=pid):
                return self._daemon.detach(policy, pid)
            case Sockets(everything=everything):
                return self._daemon.sockets(everything)
            case Explain(pid=pid, socket=address):
                return self._daemon.explain(pid, address)
            case Reload():
                return self._reload_now()
            case ChangeState(policy=policy, how=how):
                return self._change_state(policy, how)
            case Restart():
                return self._successor.launch()
            case TakeOver(pid=heir):
                return self._successor.begin(heir, self._server.listener, lambda: self._when_gone(heir))
            case TakenOver(pid=heir):
                self._successor.finish(heir)
                self._loop.call_soon_threadsafe(self._server.leave)
            case GivenBack(pid=heir, problems=problems):
                self._successor.give_back(heir, problems)
        return None

    def _when_gone(self, pid: int) -> None:
        """In the worker thread: the successor has hung up."""
        if self._successor.in_charge:
            self._loop.call_soon_threadsafe(self._end.set)
        else:
            self._successor.give_back(pid, ["it ended before it took over"])

    def _reload_now(self) -> dict[str, Any]:
        self._successor.refuse_changes()
        notify_reloading()
        try:
            return self._daemon.reload()
        finally:
            notify("READY=1", self._summary())

    def _change_state(self, policy: str, how: Command) -> dict[str, Any]:
        changed = self._daemon.change_state(policy, how)
        notify(self._summary())
        return changed

    def _summary(self) -> str:
        daemon = self._daemon
        return f"STATUS={len(daemon.plan.newest)} policies, generation {daemon.generation}"

    async def _reload(self) -> None:
        """SIGHUP. The daemon has logged what is wrong."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._answer, Reload())
        except Layer45Error:
            pass
        except Exception:
            self._log.exception("reload failed")

    def _look(self) -> str:
        """In the control thread: what makes going on pointless, after what is worth a line in the log."""
        self._successor.look()
        if self._successor.busy:
            return self._daemon.fault()
        self._daemon.tell_notices()
        self._daemon.look_for_failures()
        self._daemon.end_lost_connections()
        self._daemon.follow_host()
        self._end_old_versions()
        return self._daemon.fault()

    def _end_old_versions(self) -> None:
        try:
            self._daemon.end_old_versions()
        except Layer45Error as error:
            self._log.warning("old versions stay", reason=str(error))

    async def _watch(self) -> None:
        """Ends the daemon when a worker has died; else tells the watchdog that all is well."""
        interval_s = min(HEALTH_INTERVAL_S, watchdog_interval_s() or HEALTH_INTERVAL_S)
        while not self._end.is_set():
            await asyncio.sleep(interval_s)
            try:
                self._fault = await self._looked(interval_s)
            except Exception as error:
                self._log.exception("cannot look after the engine")
                self._fault = f"the engine does not answer: {type(error).__name__}: {error}"
            if self._fault:
                self._log.error("stopping", reason=self._fault)
                self._end.set()
            else:
                feed_watchdog()

    async def _looked(self, interval_s: float) -> str:
        """As _look, which waits for the request that is worked on: a module may take its time to configure.

        Meanwhile the watchdog is fed as long as the engine's workers live, but not for ever.
        """
        looking = asyncio.get_running_loop().run_in_executor(self._worker, self._look)
        while not (await asyncio.wait({looking}, timeout=interval_s / 4))[0]:
            if fault := self._daemon.fault():
                return fault
            since = self._working_since
            if since is not None and time.monotonic() - since < LONGEST_WORK_S:
                feed_watchdog()
        return await looking
