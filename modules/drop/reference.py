"""drop in plain Python. Rates are kept as a bucket that fills, where the hot code keeps a time (GCRA)."""

from fractions import Fraction


class Bucket:
    """Full at first; a packet takes its cost or is beyond the rate."""

    def __init__(self, per_s, burst):
        self.per_ns = Fraction(per_s) / 10**9  # exact: a float would be late by a hair
        self.burst = self.level = burst
        self.time_ns = 0

    def fill(self, now_ns):
        self.level = min(self.burst, self.level + (now_ns - self.time_ns) * self.per_ns)
        self.time_ns = now_ns


LONGEST_PAYLOAD_BYTES = 65535  # as a range's last it is no limit: a super-packet may have more


def selected(parameters, payload):
    """Whether prefix, length and invert choose a packet."""
    first, last = parameters["length"]
    fits = first <= len(payload) and (len(payload) <= last or last == LONGEST_PAYLOAD_BYTES)
    match = fits and payload.startswith(parameters["prefix"])
    return match != parameters["invert"]


class Module:
    def __init__(self, parameters, count):
        self.parameters = parameters
        self.count = count
        self.shared = {}

    def egress(self, packet):
        self.judge(packet)

    def ingress(self, packet):
        self.judge(packet)

    def judge(self, packet):
        if not selected(self.parameters, packet.payload):
            return
        self.count("selected")
        reasons = [self.is_nth(packet)]
        if not reasons[0]:
            reasons.append(self.is_beyond_rate(packet))
        if any(reasons) or not self.thins_out():
            self.count("dropped")
            packet.drop()

    def thins_out(self):
        return any(self.parameters[name] for name in ("every", "rate_packets_per_s", "rate_bytes_per_s"))

    def is_nth(self, packet):
        every = self.parameters["every"]
        if not every:
            return False
        key = "seen", packet.direction
        seen = packet.flow.state.get(key, 0) + 1
        packet.flow.state[key] = seen % every
        if seen == every:
            self.count("dropped_every")
        return seen == every

    def is_beyond_rate(self, packet):
        store = self.shared if self.parameters["scope"] == "policy" else packet.flow.state
        costs = {"packets": 1, "bytes": len(packet.payload)}
        used = [unit for unit in costs if self.parameters[f"rate_{unit}_per_s"]]
        buckets = {unit: self.bucket(store, unit, packet.direction) for unit in used}
        for bucket in buckets.values():
            bucket.fill(packet.time_ns)
        if all(bucket.level >= costs[unit] for unit, bucket in buckets.items()):
            for unit, bucket in buckets.items():
                bucket.level -= costs[unit]
            return False
        self.count("dropped_rate")
        return True

    def bucket(self, store, unit, direction):
        key = unit, direction
        if key not in store:
            per_s, burst = self.parameters[f"rate_{unit}_per_s"], self.parameters[f"burst_{unit}"]
            store[key] = Bucket(per_s, burst)
        return store[key]
