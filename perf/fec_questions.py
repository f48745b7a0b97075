"""What perf.fec_live asks of each Way, a function a question. A figure is named with its unit."""

import json
from collections.abc import Callable
from functools import partial

import numpy

from perf import lab, lossy_path, udp_load
from perf.udp_load import Arrivals, Flow, Numbers, Way
from tests.netns.topology import Hosts

BULK = "1200 B at 100 Mbit/s"
FLOWS = {
    BULK: Flow(1200, 10417),
    "200 B at 100 Mbit/s": Flow(200, 62500),
    "1200 B at 1000/s": Flow(1200, 1000),
    "200 B at 1000/s": Flow(200, 1000),
}
SLOW = Flow(1200, 104)  # 1 Mbit/s
LOSSY = (BULK, "1200 B at 1000/s")
LOSS = 0.05
ETHERNET_BYTES = 14
WARM_S = 0.2

CPU = "core-ms per source Mbit"
CPU_WITH_ENDS = "core-ms per source Mbit, ends included"
CPU_OF_OTHERS = "core-ms per source Mbit, others on this machine"
WIRE = "IP bytes on the wire per datagram"

Sample = dict[str, float]
Question = Callable[[Hosts, Way, float], Sample]


def percentiles(latency_us: Numbers, of: str) -> Sample:
    """Median, 99th percentile and maximum, named."""
    wanted = {"p50": 50, "p99": 99, "max": 100}
    return {f"{name} us, {of}": float(numpy.percentile(latency_us, rank)) for name, rank in wanted.items()}


def whole(arrivals: Arrivals) -> Arrivals:
    """The same, if each datagram came once."""
    if arrivals.lost or arrivals.duplicates:
        raise lab.BenchmarkError(f"{arrivals.lost} of {arrivals.sent} lost, {arrivals.duplicates} came again")
    return arrivals


def warmed(hosts: Hosts, way: Way, flow: Flow, seconds: float) -> Arrivals:
    """A flow's arrivals, after a little of it for all that happens only once."""
    udp_load.carry(hosts, way, flow, WARM_S)
    return udp_load.carry(hosts, way, flow, seconds)


def on_a_whole_path(name: str, hosts: Hosts, way: Way, seconds: float) -> Sample:
    """Latency of a flow, and what BULK costs."""
    arrivals = whole(warmed(hosts, way, FLOWS[name], seconds))
    return percentiles(arrivals.latency_us, name) | (cost(arrivals, FLOWS[name]) if name == BULK else {})


def cost(arrivals: Arrivals, flow: Flow) -> Sample:
    """Of those that carried the flow, with its ends as well, and of all others: how quiet the machine was."""
    bits = arrivals.sent * flow.payload_bytes * 8  # and a nanosecond a bit is a millisecond a megabit
    return {
        CPU: arrivals.way_cpu_ns / bits,
        CPU_WITH_ENDS: (arrivals.way_cpu_ns + arrivals.ends_cpu_ns) / bits,
        CPU_OF_OTHERS: arrivals.others_cpu_ns / bits,
    }


def on_the_wire(hosts: Hosts, way: Way, seconds: float) -> Sample:
    """IP bytes of both directions."""
    before = ip_bytes(hosts)
    arrivals = whole(udp_load.carry(hosts, way, SLOW, seconds))
    return {WIRE: (ip_bytes(hosts) - before) / arrivals.sent}


def ip_bytes(hosts: Hosts) -> int:
    """That crossed the wire since it exists."""
    done = hosts.a.run(["ip", "-j", "-s", "link", "show", hosts.a.device])
    counts = json.loads(done.stdout)[0]["stats64"]
    return sum(counts[way]["bytes"] - ETHERNET_BYTES * counts[way]["packets"] for way in ("rx", "tx"))


def on_a_lossy_path(name: str, hosts: Hosts, way: Way, seconds: float) -> Sample:
    """What stays lost, and how late the others are: all of them, and those that the path had lost."""
    with lossy_path.lossy(hosts.b, LOSS) as capture:
        arrivals = warmed(hosts, way, FLOWS[name], seconds)
    lost = lossy_path.stamps(capture)
    came = zip(arrivals.numbers.tolist(), arrivals.sent_ns.tolist(), strict=True)
    recovered = numpy.array([stamp in lost for stamp in came])
    found: Sample = {
        stayed_lost(name): 100 * arrivals.lost / arrivals.sent,
        f"came twice, {name}, lossy": arrivals.duplicates,
    }
    found |= percentiles(arrivals.latency_us, f"{name}, lossy")
    if recovered.any():
        found |= percentiles(arrivals.latency_us[recovered], f"{name}, recovered")
        found |= percentiles(arrivals.latency_us[~recovered], f"{name}, not lost")
    return found


def stayed_lost(name: str) -> str:
    """A figure's name."""
    return f"% that stayed lost, {name}"


QUESTIONS: dict[str, Question] = {
    **{name: partial(on_a_whole_path, name) for name in FLOWS},
    "on the wire": on_the_wire,
    **{f"{name}, lossy": partial(on_a_lossy_path, name) for name in LOSSY},
}
