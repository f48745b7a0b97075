"""A daemon, looked at again and again: memory, descriptors and threads from /proc, counters by asking it."""

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

from layer45.control_client import ask
from layer45.control_messages import Stats, Status
from layer45.errors import Layer45Error
from perf.soak_judge import Sample
from tests.netns.daemons import Daemon

HANG_UP_S = 0.5  # a connection to the control socket is closed by then


def sample(daemon: Daemon, begun: float) -> Sample:
    """One look. begun: the monotonic time from which it counts.

    The process first: the connection that asks is one of its descriptors, too.
    Raises Layer45Error or OSError when the daemon is just going.
    """
    assert daemon.process is not None
    process = Path(f"/proc/{daemon.process.pid}")
    memory = _kilobytes(process / "smaps_rollup")
    counted = {what: sum(1 for _ in (process / what).iterdir()) for what in ("fd", "task")}
    status = ask(daemon.socket, Status(), daemon.directory)
    if status["pid"] != daemon.process.pid:
        raise ProcessLookupError(f"{daemon.process.pid}: another one answers")
    return Sample(
        seconds=round(time.monotonic() - begun, 3),
        pid=status["pid"],
        memory_kb=memory["Pss"],
        resident_kb=memory["Rss"],
        descriptors=counted["fd"],
        threads=counted["task"],
        engine=ask(daemon.socket, Stats(), daemon.directory)["engine"],
        **_summed(status["queues"]),
    )


def _summed(queues: list[dict[str, Any]]) -> dict[str, Any]:
    live = {key.removeprefix("live_") for queue in queues for key in queue if key.startswith("live_")}
    return {
        "waiting": sum(queue["waiting"] for queue in queues),
        "dropped": sum(queue["dropped"] for queue in queues),
        "live": {name: sum(queue[f"live_{name}"] for queue in queues) for name in sorted(live)},
    }


def _kilobytes(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) for words in lines}


class Watch:
    """Samples of daemons by a thread, each so often; the first is taken at once."""

    def __init__(self, daemons: dict[str, Daemon], interval_s: float) -> None:
        self.begun = time.monotonic()
        self.series = {name: [sample(daemon, self.begun)] for name, daemon in daemons.items()}
        self._daemons, self._interval_s = daemons, interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            for name, daemon in self._daemons.items():
                with contextlib.suppress(
                    Layer45Error, OSError
                ):  # one hands over: the judge looks for long gaps
                    self.series[name].append(sample(daemon, self.begun))

    def end(self) -> None:
        """No further samples."""
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        """One sample more of each. Raises Layer45Error: a daemon is gone."""
        time.sleep(HANG_UP_S)
        for name, daemon in self._daemons.items():
            self.series[name].append(sample(daemon, self.begun))
