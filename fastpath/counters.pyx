"""Names and help of the engine's counters, in the order of counters.pxd."""

COUNTERS: tuple[tuple[str, str], ...] = (
    ("received", "packets taken from the queue"),
    ("received_bytes", "their IP lengths, in bytes"),
    ("passed", "packets let go as they came"),
    ("rewritten", "packets let go with other bytes"),
    ("dropped", "packets dropped, by a module or because a closed policy failed"),
    ("held", "packets that modules hold now"),
    ("injected", "packets sent beside the queue: copies and too-big messages"),
    ("inject_errors", "packets the raw socket refused, or that can't be injected in their direction"),
    ("clones", "copies that modules made"),
    ("clones_ended", "copies that ended: sent, dropped by the chain, discarded, or lost with their flow"),
    ("pool_empty", "copies and holds refused because max_held packets were out"),
    ("memory_empty", "requests of modules for memory refused because module_memory_mb was out"),
    ("module_errors", "packets for which a module answered ERROR"),
    ("unset_verdicts", "packets for which a module gave no verdict (a fault in the module)"),
    ("not_owned", "packets resumed, discarded or held by a module that could not (a fault in the module)"),
    ("failed_open", "packets of open policies passed uncustomized after a failure"),
    ("failed_closed", "packets of closed policies dropped after a failure"),
    ("no_class", "packets whose mark names no policy of ours, passed"),
    ("short", "packets shorter than their headers, passed"),
    ("malformed", "packets with a length or version that lies, passed"),
    ("fragments", "IP fragments, passed"),
    ("other_protocol", "packets of protocols that the policy's chain does not take, passed"),
    ("too_many_headers", "IPv6 packets with more than 8 extension headers, passed"),
    ("truncated", "packets of which the chain needs more bytes than were captured"),
    ("flows_opened", "flows opened"),
    ("flows_idle", "flows closed because nothing came for the idle time"),
    ("flows_evicted", "flows closed to make room for new ones"),
    ("flows_closed", "flows closed for another reason: their policy changed, or the engine stopped"),
    ("fragmentation_allowed", "packets that grew, and so lost their don't-fragment bit"),
    ("too_big", "packets dropped because they outgrew the MTU and the policy says to signal"),
    ("too_big_signalled", "too-big messages sent to local senders"),
    ("batches", "times the queue was drained"),
    ("verdict_errors", "verdict messages the kernel did not take"),
    ("kernel_errors", "error messages from the kernel on the queue's socket"),
    ("kernel_overruns", "times the kernel had no room to hand us packets"),
)
NAMES: tuple[str, ...] = tuple(name for name, _ in COUNTERS)

if len(COUNTERS) != ENGINE_COUNTERS:
    raise ImportError(f"counters.pyx names {len(COUNTERS)} counters, counters.pxd has {ENGINE_COUNTERS}")
