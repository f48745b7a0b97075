"""The engine as the daemon sees it: queues with their workers and threads, and the chains they run.

    apply:   chains built (equal ones kept) → queues bound → one class table published to every worker
    retire:  queues that no plan uses any more are emptied and closed
    stop:    every queue is emptied and closed

Called from one thread at a time. Packets never wait for it: workers take up a new table between two batches.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv6Address
from typing import Any

from layer45 import bound_queues, processors
from layer45.bound_queues import NOTHING, Bound
from layer45.chains import build_chain, tally
from layer45.config import Settings
from layer45.errors import Layer45Error
from layer45.failures import ChainKey, Tally
from layer45.fastpath.chain import Chain, ClassTable
from layer45.fastpath.counters import COUNTERS
from layer45.fastpath.queue import QueueLoop
from layer45.fastpath.worker import Worker
from layer45.loader import Plan, QueuePlan
from layer45.privileges import keep_least
from layer45.ratio import Ratios, with_ratios
from layer45.rules.diversion import MarkLayout

SETTLE_S = 2.0  # how long apply waits for the workers to use what was published
JOIN_S = 5.0
ENDS = ("local", "remote")


class _Queue:
    """One bound queue with its worker and its thread."""

    def __init__(
        self,
        settings: Settings,
        plan: QueuePlan,
        number: int,
        index: int,
        marks: MarkLayout,
        known: int,
        processor: int | None,
    ) -> None:
        self.plan = plan
        self.number = number
        self.processor = processor
        self.worker = _worker(settings, number, index, known)
        self._loop = _bind(self.worker, plan, number, settings, marks)
        self._thread = threading.Thread(target=self._run, name=f"layer45-{number}", daemon=True)

    def _run(self) -> None:
        processors.keep_to(self.processor)  # before the filter, which forbids it to modules
        keep_least("worker")
        self._loop.run()

    def start(self) -> None:
        self._thread.start()

    def publish(self, table: ClassTable) -> None:
        self.worker.publish(table)
        self._loop.wake()

    def ask_to_stop(self) -> None:
        self._loop.stop()

    def close(self) -> None:
        """After ask_to_stop: waits for the thread, and gives the queue back."""
        if self._thread.ident is not None:
            self._thread.join(JOIN_S)
        if not self._thread.is_alive():
            self._loop.close()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def processors(self) -> str:
        """Those that the thread may run on, as the kernel has it now: "0-3,6"; empty when it has ended."""
        return processors.of_thread(self._thread.native_id) if self.alive else ""


def _worker(settings: Settings, number: int, index: int, known: int) -> Worker:
    try:
        return Worker(
            index,
            max_flows=settings.max_flows,
            max_held=settings.max_held,
            memory_bytes=settings.module_memory_mb << 20,
            seed=(settings.seed or int.from_bytes(os.urandom(7))) + number,
            udp_idle_s=settings.udp_idle_s,
            tcp_idle_s=settings.tcp_idle_s,
            known_fd=known,
        )
    except MemoryError as error:
        mend = "lower max_flows, max_held or module_memory_mb"
        raise Layer45Error(f"queue {number}: {error}; {mend}") from error


def _bind(worker: Worker, plan: QueuePlan, number: int, settings: Settings, marks: MarkLayout) -> QueueLoop:
    try:
        return QueueLoop(
            worker,
            number,
            copy_bytes=plan.copy_bytes,
            gso=plan.gso,
            fail_open=plan.fail_open,
            length=settings.queue_length,
            busy_poll_us=settings.busy_poll_us,
            coalesce_us=0 if plan.gso else settings.coalesce_us,  # a super-packet is worth its system calls
            class_mask=marks.class_mask,
            exempt_mark=marks.exempt_bit,
            copies=plan.copies,
        )
    except PermissionError as error:
        taken = "in use by another program, or " if plan.copies else ""  # the kernel answers both with EPERM
        raise Layer45Error(f"{plan.kind_name} {number}: {taken}no permission; run as root") from error
    except OSError as error:
        way, mend = ("NFLOG", ', or set path = "queue"') if plan.copies else ("NFQUEUE", "")
        reason = f"in use by another program, or this kernel has no {way}"
        raise Layer45Error(
            f"{plan.kind_name} {number}: {reason} ({error}); run: layer45 doctor{mend}"
        ) from error


class Engine:
    """The compiled fast path of one daemon."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._processors = processors.parse(settings.worker_cpus)
        self._queues: dict[int, _Queue] = {}
        self._chains: dict[ChainKey, Chain] = {}
        self._built: dict[ChainKey, Chain] = {}  # for the next plan
        # By class: a version keeps its chain when it is no longer the newest.
        self._names: dict[int, str] = {}
        self._ratios: dict[str, Ratios] = {}  # by module; of all plans so far, for flows keep their chain
        self._wanted: set[int] = set()
        self._past: Counter[str] = Counter()

    def build(self, plan: Plan) -> None:
        """Configures the modules of the plan's new chains, however long that takes; apply then uses them.

        Raises Layer45Error; nothing has changed then, or otherwise.
        """
        had = {**self._built, **self._chains}
        keys = [(each.class_id, each.text) for each in plan.chains]
        self._built = {
            key: had.get(key) or build_chain(each, self._settings.workers)
            for key, each in zip(keys, plan.chains, strict=True)
        }

    def apply(self, plan: Plan, known: int = -1) -> None:
        """Runs the plan's chains on the plan's queues. On Layer45Error all is as it was.

        known: the map that new queues' workers tell of connections; it outlives the engine. -1: none.
        """
        self.build(plan)
        chains, self._built = self._built, {}
        table = ClassTable(chains.values())
        opened = self._open(plan, known)
        for queue in (*self._queues.values(), *opened):
            queue.publish(table)
        for queue in opened:
            queue.start()
            self._queues[queue.number] = queue
        self._chains = chains
        self._names = {each.class_id: each.name for each in plan.chains}
        for each in plan.chains:
            self._ratios.update(each.ratios)
        self._wanted = {number for group in plan.queues for number in _numbers(group)}
        self._settle()

    def _open(self, plan: Plan, known: int) -> list[_Queue]:
        opened: list[_Queue] = []
        try:
            for group in plan.queues:
                for index, number in enumerate(_numbers(group)):
                    if number not in self._queues:
                        taken = (each.processor for each in (*self._queues.values(), *opened))
                        place = processors.next_of(self._processors, taken)
                        marks = plan.rules.marks
                        opened.append(_Queue(self._settings, group, number, index, marks, known, place))
        except BaseException:
            for queue in opened:
                queue.close()
            raise
        return opened

    def _settle(self) -> None:
        """Waits until every worker uses the new table, then lets go of the old ones."""
        until = time.monotonic() + SETTLE_S
        while not all(queue.worker.settled for queue in self._queues.values()) and time.monotonic() < until:
            time.sleep(0.0005)
        for queue in self._queues.values():
            queue.worker.reclaim()

    def retire(self) -> None:
        """Empties and closes the queues that the plan does not use; call when no rule leads there."""
        self._close([queue for number, queue in self._queues.items() if number not in self._wanted])

    def stop(self) -> None:
        """Empties and closes every queue."""
        self._close(list(self._queues.values()))

    def _close(self, queues: Iterable[_Queue]) -> None:
        queues = list(queues)
        for queue in queues:
            queue.ask_to_stop()
        for queue in queues:
            queue.close()
            self._past.update(queue.worker.counters())
            del self._queues[queue.number]

    def dead_queue(self) -> int | None:
        """A queue whose thread has died. From any thread."""
        return next((queue.number for queue in list(self._queues.values()) if not queue.alive), None)

    def status(self) -> dict[str, Any]:
        """{"queues": [...]}: number, group, thread alive, packets waiting and dropped in the kernel."""
        kernel = bound_queues.queues(), bound_queues.groups()
        return {"queues": [_describe(queue, *_seen(queue, *kernel)) for queue in self._queues.values()]}

    def stats(self) -> dict[str, Any]:
        """The engine's counters over all workers since the start, each policy's, and what they mean."""
        total = self._counted()
        return {
            "engine": {name: total[name] for name, _ in COUNTERS},
            "policies": {
                self._names[chain.class_id]: _chain_stats(chain, self._ratios)
                for chain in self._chains.values()
            },
            "help": dict(COUNTERS),
        }

    def lost(self) -> int:
        """How many customized TCP connections were forgotten while they lived, so far."""
        return self._counted()["connections_lost"]

    def _counted(self) -> Counter[str]:
        """The engine's counters, of all workers since the start."""
        total = Counter(self._past)
        for queue in self._queues.values():
            total.update(queue.worker.counters())
        return total

    def tallies(self) -> list[Tally]:
        """What each policy's chain has counted of its failures."""
        return [tally(key, chain) for key, chain in self._chains.items()]

    def disable(self, key: ChainKey, disabled: bool) -> None:
        """Packets of the chain go round it, and on_failure decides; or no longer."""
        self._chains[key].disabled = disabled

    def customized(self, policies: Collection[str] | None = None) -> set[bytes]:
        """Keys of the live customized TCP connections, as the map of known connections has them.

        policies: only theirs.
        """
        classes = {chain.class_id for chain in self._chains.values() if policies and chain.policy in policies}
        return {
            b"".join((flow["local"][0], flow["remote"][0], *(flow[end][1].to_bytes(2) for end in ENDS)))
            for queue in self._queues.values()
            for flow in queue.worker.flows(self._settings.max_flows)
            if flow["state"] == "customized" and (policies is None or flow["class"] in classes)
        }

    def flows(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Up to limit live flows, busiest first, with the instances that count by flow."""
        found = [
            _flow(flow, self._names, self._ratios)
            for queue in self._queues.values()
            for flow in queue.worker.flows(max_flows(limit, self._settings))
        ]
        found.sort(key=lambda flow: -(flow["egress_packets"] + flow["ingress_packets"]))
        return found[:limit]


def max_flows(limit: int, settings: Settings) -> int:
    """How many flows of one worker to look at for `limit` of all, busiest first: every one, within reason."""
    return max(limit, min(settings.max_flows, 100_000))


def _numbers(group: QueuePlan) -> range:
    return range(group.first, group.first + group.workers)


def _seen(queue: _Queue, queues: Mapping[int, Bound], groups: Mapping[int, Bound]) -> tuple[int, int]:
    """What waits in the kernel, and what it dropped: packets, or copies of packets that went on."""
    bound = (groups if queue.plan.copies else queues).get(queue.number, NOTHING)
    return bound.waiting, queue.worker.counters()["copies_lost"] if queue.plan.copies else bound.dropped


def _describe(queue: _Queue, waiting: int, dropped: int) -> dict[str, Any]:
    return {
        "number": queue.number,
        "path": "copies" if queue.plan.copies else "queue",
        "group": queue.plan.first,
        "on_failure": queue.plan.on_failure,
        "copy_bytes": queue.plan.copy_bytes,
        "gso": queue.plan.gso,
        "alive": queue.alive,
        "cpus": queue.processors,
        "waiting": waiting,
        "dropped": dropped,
        **{f"live_{name}": count for name, count in queue.worker.live.items()},
    }


def _chain_stats(chain: Chain, ratios: Mapping[str, Ratios]) -> dict[str, Any]:
    counters = chain.counters()
    return {
        "class": chain.class_id,
        "flows": chain.flows,
        "packets": counters["egress_packets"] + counters["ingress_packets"],
        "bytes": counters["egress_bytes"] + counters["ingress_bytes"],
        **counters,
        "instances": with_ratios(counters["instances"], ratios),
    }


def _flow(flow: dict[str, Any], names: dict[int, str], ratios: Mapping[str, Ratios]) -> dict[str, Any]:
    return {
        **flow,
        "policy": names.get(flow["class"], ""),
        "local": _endpoint(*flow["local"]),
        "remote": _endpoint(*flow["remote"]),
        "instances": with_ratios(flow["instances"], ratios),
    }


def _endpoint(packed: bytes, port: int) -> str:
    address = IPv6Address(packed)
    return f"{address.ipv4_mapped}:{port}" if address.ipv4_mapped else f"[{address}]:{port}"
