"""option_tag in plain Python: the wire format of README.md, for tests and for reading."""

END, NOP, MD5, AO, EXPERIMENT = 0, 1, 19, 29, 253
SYN, ACK = 2, 16
LARGEST_OPTIONS_BYTES = 40
ENGINES_EXID = 0x4C45  # of the offer that the engine puts into SYNs


def walk(options):
    """(where, kind, data) of each option, up to the end of the list, or to one that lies about its length."""
    at = 0
    while at < len(options) and options[at] != END:
        if options[at] == NOP:
            at += 1
            continue
        count = options[at + 1] if at + 1 < len(options) else 0
        if not 2 <= count <= len(options) - at:
            return
        yield at, options[at], options[at + 2 : at + count]
        at += count


def option(identity, kind, exid):
    """With its padding."""
    content = exid.to_bytes(2, "big") + identity
    whole = bytes([kind, 2 + len(content)]) + content
    return whole + bytes([NOP] * (-len(whole) % 4))


def find(options, kind, exid):
    """(where, identity) of the first one, or None."""
    for at, each, data in walk(options):
        if each == kind and data[:2] == exid.to_bytes(2, "big"):
            return at, data[2:]
    return None


class Module:
    def __init__(self, parameters, count):
        self.id_bytes, self.kind, self.exid = (parameters[name] for name in ("id_bytes", "kind", "exid"))
        if max(len(parameters["id"]), len(parameters["expect"])) > self.id_bytes:
            raise ValueError("id and expect: expected at most id_bytes")
        if (self.kind, self.exid) == (EXPERIMENT, ENGINES_EXID):
            raise ValueError("exid: this one is the engine's own")
        self.option = option(parameters["id"].ljust(self.id_bytes, b"\0"), self.kind, self.exid)
        self.expect = parameters["expect"] and parameters["expect"].ljust(self.id_bytes, b"\0")
        self.on_all = parameters["on"] == "all"
        self.drop_unmarked = parameters["unmarked"] == "drop"
        self.count = count

    def is_tagged(self, packet):
        return packet.tcp_flags & SYN != 0 or (self.on_all and packet.agreed)

    def may_grow(self, packet):
        if not packet.tcp_flags & SYN:
            return True
        if not packet.tcp_flags & ACK:
            return find(packet.tcp_options, EXPERIMENT, ENGINES_EXID) is not None
        return not any(kind in (MD5, AO) for _, kind, _ in walk(packet.tcp_options))

    def has_room(self, packet):
        return len(packet.tcp_options) + len(self.option) <= LARGEST_OPTIONS_BYTES

    def egress(self, packet):
        if not self.is_tagged(packet):
            return
        if not self.may_grow(packet) or not self.has_room(packet):
            self.count("no_room")
            return
        packet.tcp_options = self.option + packet.tcp_options
        self.count("tagged")

    def ingress(self, packet):
        found = find(packet.tcp_options, self.kind, self.exid)
        if found is None or len(found[1]) != self.id_bytes:
            self.without(packet)
            return
        at, identity = found
        if self.expect and identity != self.expect:
            self.count("wrong_identity")
            packet.drop()
            return
        packet.tcp_options = self.taken_out(packet.tcp_options, at)
        self.count("stripped")

    def without(self, packet):
        if not self.is_tagged(packet) or (not packet.tcp_flags & SYN and not self.has_room(packet)):
            return
        self.count("unmarked")
        if self.drop_unmarked:
            packet.drop()

    def taken_out(self, options, at):
        """With its padding; where that is gone, NOPs take the option's place."""
        bare_bytes, padding = 4 + self.id_bytes, self.option[4 + self.id_bytes :]
        behind = at + bare_bytes
        if options[behind : behind + len(padding)] == padding:
            return options[:at] + options[behind + len(padding) :]
        return options[:at] + bytes([NOP] * bare_bytes) + options[behind:]
