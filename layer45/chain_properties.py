"""What the modules of a chain declare, summed over the chain; and the reasons why a chain cannot work."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from hashlib import blake2s

from layer45.modulefolder import Module
from layer45.problems import Place

MAX_GROWTH_BYTES = (
    1200  # 1280, the smallest MTU of IPv6, less its header and some for the transport's and payload
)
WHOLE_PACKET_BYTES = 65531  # the most a netlink attribute holds
HEADER_BYTES = 192  # IP with options or extension headers, and TCP with all of its options
PAYLOAD_ROOM = {("ipv4", "udp"): 1472, ("ipv6", "udp"): 1452, ("ipv4", "tcp"): 1460, ("ipv6", "tcp"): 1440}


@dataclass(frozen=True)
class InstancePlan:
    """A module with validated parameters, in one place of one chain. directions: those it runs in.

    place: where it is written.
    """

    module: Module
    values: dict[str, object]
    directions: frozenset[str]
    place: Place | None = field(default=None, compare=False, repr=False)

    @property
    def stream_growth(self) -> tuple[int, int]:
        """(bytes, every): so many are inserted into a TCP stream at most for each begun `every`."""
        manifest = self.module.manifest
        return manifest.stream_bytes.evaluate(self.values), manifest.stream_every.evaluate(self.values)

    @property
    def header_growth(self) -> int:
        """Bytes of TCP options that it adds to a segment, at most."""
        manifest = self.module.manifest
        return manifest.growth_front.evaluate(self.values) if manifest.kind == "segment" else 0

    @property
    def agreed(self) -> bool:
        """Whether the peer of a TCP connection must run it too."""
        return self.module.manifest.kind == "stream" or self.header_growth > 0


@dataclass(frozen=True)
class Link:
    """An instance, and where a policy has it from: an entry of its chain, or an element of its include."""

    instance: InstancePlan
    place: Place
    included: bool = False

    def at(self, key: str) -> Place:
        """Where to tell of a problem with a key of the entry."""
        return self.place if self.included else self.place.child(key)

    @property
    def name(self) -> str:
        """The module's."""
        return self.instance.module.name


@dataclass(frozen=True)
class ChainProperties:
    """Sums. Growth: bytes, worst case on egress. State: bytes a flow. reads: "headers" or "payload".

    gso: super-packets may come. copy_bytes: of a packet, that the kernel must copy to us. renumbers: TCP
    streams are not what our kernel takes them for. digests: of what leaves and of what comes, where TCP
    needs the peer's agreement. lets_go: it may be done with a flow before its end.
    """

    growth_front: int
    growth_back: int
    flow_state_bytes: int
    reads: str
    gso: bool
    copy_bytes: int
    renumbers: bool = False
    digests: tuple[int, int] | None = None
    lets_go: bool = False

    @property
    def growth(self) -> int:
        """Front and back."""
        return self.growth_front + self.growth_back


def add_up(instances: Sequence[InstancePlan], protocols: Sequence[str]) -> ChainProperties:
    """The properties of a chain for sockets of these protocols."""
    growing = [each for each in instances if "egress" in each.directions]
    front = sum(each.module.manifest.growth_front.evaluate(each.values) for each in growing)
    back = sum(each.module.manifest.growth_back.evaluate(each.values) for each in growing)
    whole = front + back > 0 or any(_wants_whole(each.module) for each in instances)
    digests = _digests(instances) if "tcp" in protocols else None
    super_packets = all(each.module.manifest.gso for each in instances)
    return ChainProperties(
        growth_front=front,
        growth_back=back,
        flow_state_bytes=sum(each.module.manifest.flow_state_bytes for each in instances),
        reads="payload" if whole else "headers",
        gso=tuple(protocols) == ("tcp",) and super_packets,
        copy_bytes=WHOLE_PACKET_BYTES if whole else HEADER_BYTES,
        renumbers="tcp" in protocols and any(each.module.manifest.kind == "stream" for each in instances),
        digests=digests,
        lets_go=bool(instances) and not digests and all(each.module.manifest.lets_go for each in instances),
    )


def _digests(instances: Sequence[InstancePlan]) -> tuple[int, int] | None:
    """16 bits of what a peer must know of each direction: modules, their order, their shared parameters."""
    shared = [each for each in instances if each.agreed]
    return (_digest(shared, "egress"), _digest(shared, "ingress")) if shared else None


def _digest(instances: Sequence[InstancePlan], direction: str) -> int:
    lines = [_shared_text(each) for each in instances if direction in each.directions]
    return int.from_bytes(blake2s("\n".join(lines).encode(), digest_size=2).digest())


def _shared_text(instance: InstancePlan) -> str:
    manifest = instance.module.manifest
    shared = {name: instance.values[name] for name, each in manifest.parameters.items() if not each.local}
    return f"{manifest.name} {manifest.version.partition('.')[0]} {shared}"


def _wants_whole(module: Module) -> bool:
    """A truncated packet cannot be edited, nor can a copy of it be sent."""
    return module.manifest.reads == "payload" or bool(module.manifest.emits)


def payload_room(growth: int, protocols: Iterable[str]) -> dict[str, int]:
    """Payload bytes that fit into an MTU of 1500 together with the growth, by "ipv4/udp" and so on."""
    return {
        f"{version}/{protocol}": room - growth
        for (version, protocol), room in PAYLOAD_ROOM.items()
        if protocol in protocols
    }


Fault = tuple[Place, str]


def chain_faults(links: Sequence[Link], protocols: Sequence[str], complete: bool) -> list[Fault]:
    """Every reason why this chain cannot work for these protocols, each with its place.

    complete: no instance was left out for its own problems, so what is missing is really missing.
    """
    found = [fault for link in links for fault in instance_faults(link, protocols)]
    return found + _ordering_faults(links) + (_need_faults(links) if complete else [])


def instance_faults(link: Link, protocols: Sequence[str]) -> list[Fault]:
    """Why one instance cannot work for these protocols."""
    manifest, place = link.instance.module.manifest, link.at("module")
    found = []
    missing = [each for each in protocols if each not in manifest.transports]
    if missing:
        text = f"module {link.name} works on {', '.join(manifest.transports)}, but the policy matches"
        found.append((place, f"{text} {', '.join(protocols)}; {_narrower(manifest.transports, protocols)}"))
    elif "tcp" in protocols and manifest.kind == "datagram":
        text = f"module {link.name} is of kind datagram: it would break TCP's sequence numbers"
        found.append(
            (place, f'{text}; expected match.protocol = "udp", or a module of kind segment or stream')
        )
    elif "tcp" in protocols and manifest.growth_back.evaluate(link.instance.values):
        text = f"module {link.name} makes payloads longer, which would break TCP's sequence numbers"
        found.append((place, f"{text}; expected a module of kind stream"))
    return found


def _narrower(transports: Sequence[str], protocols: Sequence[str]) -> str:
    both = [each for each in transports if each in protocols]
    return f'expected match.protocol = "{both[0]}"' if both else "expected another module or another protocol"


def _ordering_faults(links: Sequence[Link]) -> list[Fault]:
    if not links:
        return []
    before = _constraints(links)
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        circle = " -> ".join(_from_the_first_name(error.args[1]))
        return [(links[0].at("module"), f"the modules' runs_after and runs_before contradict: {circle}")]
    return [
        (later.at("module"), f"module {later.name} must stand before {earlier.name} in the chain")
        for position, later in enumerate(links)
        for earlier in links[:position]
        if later.name in before.get(earlier.name, ())
    ]


def _from_the_first_name(circle: list[str]) -> list[str]:
    """The circle [a, …, a] begun with the first name in the alphabet, to tell of it in one way only."""
    start = circle.index(min(circle))
    return [*circle[start:-1], *circle[:start], circle[start]]


def _constraints(links: Sequence[Link]) -> dict[str, set[str]]:
    """For each module of the chain those of the chain that must stand before it."""
    manifests = {link.name: link.instance.module.manifest for link in links}
    before: dict[str, set[str]] = {name: set() for name in manifests}
    for name, manifest in manifests.items():
        before[name].update(each for each in manifest.runs_after if each in manifests)
        for later in manifest.runs_before:
            if later in manifests:
                before[later].add(name)
    return before


def _need_faults(links: Sequence[Link]) -> list[Fault]:
    found = []
    for position, link in enumerate(links):
        for key, value, need in _needs(link.instance):
            text = f'"{value}" needs "{need}" from a module behind {link.name} in the chain; '
            fault = _need_fault(link, need, links[position + 1 :])
            if fault:
                found.append((link.at(key), text + fault))
    return found


def _need_fault(user: Link, need: str, behind: Sequence[Link]) -> str:
    """The nearest one that provides it counts; what it provides must not be hidden between the two."""
    for link in behind:
        if _provides(link.instance, need, user.instance):
            return ""
        if need in link.instance.module.manifest.hides:
            return f"{link.name} in between hides it"
    return "none there provides it"


def _needs(instance: InstancePlan) -> Iterable[tuple[str, str, str]]:
    """(parameter, its value, what that needs)"""
    for key, parameter in instance.module.manifest.parameters.items():
        value = instance.values.get(key)
        if isinstance(value, str) and value in parameter.needs:
            yield key, value, parameter.needs[value]


def _provides(instance: InstancePlan, need: str, user: InstancePlan) -> bool:
    return need in instance.module.manifest.provides and instance.directions >= user.directions


def cautions(links: Sequence[Link]) -> list[Fault]:
    """What works in replay but not live."""
    text = "sends packets of its own on ingress; the engine can do that in replay only"
    return [
        (link.at("module"), f"module {link.name} {text}")
        for link in links
        if "ingress" in link.instance.directions and "ingress" in link.instance.module.manifest.emits
    ]


def canonical(instances: Sequence[InstancePlan], settings: Mapping[str, object]) -> str:
    """A text that is equal for chains that do the same: settings, then one line an instance."""
    head = " ".join(f"{key}={value}" for key, value in settings.items())
    return "\n".join([head, *(_instance_text(each) for each in instances)])


def _instance_text(instance: InstancePlan) -> str:
    module = instance.module
    values = " ".join(f"{key}={value!r}" for key, value in instance.values.items())
    code = f"{module.folder} {module.manifest.version} {module.code_digest()}"
    return f"{module.name} ({code}) {'+'.join(sorted(instance.directions))} {values}".rstrip()
