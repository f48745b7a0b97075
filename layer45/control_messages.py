"""What a client may ask of the daemon over the control socket, and what it hears: one JSON document a line.

{"command": "flows", "limit": 10}\\n   →   {"ok": true, "result": [...]}\\n
                                      or  {"ok": false, "problems": ["one line", ...]}\\n
"""

from typing import Annotated, Any

import msgspec

from layer45.life_cycle import Command

LONGEST_REQUEST_BYTES = 64 * 1024
MOST_FLOWS = 100_000
LAST_PID = 1 << 22  # the kernel's largest

PolicyName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Pid = Annotated[int, msgspec.Meta(ge=1, le=LAST_PID)]


class Status(msgspec.Struct, tag_field="command", tag="status", forbid_unknown_fields=True):
    """The daemon's state: policies, queues, rules."""


class Stats(msgspec.Struct, tag_field="command", tag="stats", forbid_unknown_fields=True):
    """Every counter, with its help."""


class Flows(msgspec.Struct, tag_field="command", tag="flows", forbid_unknown_fields=True):
    """Live flows, at most limit of them."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_FLOWS)] = 1000


class Reload(msgspec.Struct, tag_field="command", tag="reload", forbid_unknown_fields=True):
    """Read the configuration again; on any error nothing changes."""


class ExecPrepare(msgspec.Struct, tag_field="command", tag="exec-prepare", forbid_unknown_fields=True):
    """Make the cgroup of a policy's programs; the reply names it."""

    policy: PolicyName


class ChangeState(msgspec.Struct, tag_field="command", tag="change-state", forbid_unknown_fields=True):
    """Change one policy's state in the running daemon; on any error nothing changes."""

    policy: PolicyName
    how: Command


class Attach(msgspec.Struct, tag_field="command", tag="attach", forbid_unknown_fields=True):
    """Tag the open sockets of a process as if they were made now."""

    policy: PolicyName
    pid: Pid


class Detach(msgspec.Struct, tag_field="command", tag="detach", forbid_unknown_fields=True):
    """Take a policy out of the tags of a process's open sockets."""

    policy: PolicyName
    pid: Pid


class Sockets(msgspec.Struct, tag_field="command", tag="sockets", forbid_unknown_fields=True):
    """Sockets that policies have; everything: all of the network namespace."""

    everything: bool = False


class Explain(msgspec.Struct, tag_field="command", tag="explain", forbid_unknown_fields=True):
    """Why sockets have the policies they have: those of a process, or at an address. One of the two."""

    pid: Pid | None = None
    socket: Annotated[str, msgspec.Meta(max_length=255)] | None = None


class Restart(msgspec.Struct, tag_field="command", tag="restart", forbid_unknown_fields=True):
    """Start a successor, which takes over; the reply names its process."""


class TakeOver(msgspec.Struct, tag_field="command", tag="take-over"):
    """A successor asks what it needs to take over. Root's only; see handover.py for what follows."""

    pid: Pid


class TakenOver(msgspec.Struct, tag_field="command", tag="taken-over"):
    """The successor is in charge; who is asked goes. Root's only."""

    pid: Pid


class GivenBack(msgspec.Struct, tag_field="command", tag="given-back"):
    """The successor cannot take over, and goes. Root's only."""

    pid: Pid
    problems: list[str]


Request = (
    Status | Stats | Flows | Reload | ExecPrepare | ChangeState | Attach | Detach | Sockets | Explain
    | Restart | TakeOver | TakenOver | GivenBack
)  # fmt: skip
ROOTS = (TakeOver, TakenOver, GivenBack)  # requests that only root may make


class Reply(msgspec.Struct, omit_defaults=True):
    """ok and a result, or not ok and one line for each problem."""

    ok: bool
    result: Any = None
    problems: list[str] = []


_requests = msgspec.json.Decoder(Request)
_replies = msgspec.json.Decoder(Reply)
_encoder = msgspec.json.Encoder()


def decode_request(line: bytes) -> Request:
    """Raises msgspec.DecodeError (of which ValidationError is one), its text in one line."""
    return _requests.decode(line)


def decode_reply(line: bytes) -> Reply:
    """Raises msgspec.DecodeError."""
    return _replies.decode(line)


def encode(message: Request | Reply) -> bytes:
    """One line, its end included."""
    return _encoder.encode(message) + b"\n"
