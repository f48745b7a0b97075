"""Doctor: whether other software's rules on this host use our mark bits or our queues."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from layer45.doctor import Finding, found
from layer45.doctor_host import search_path

WHOLE_MARK = 0xFFFFFFFF
READ_TIME_OUT_S = 15
OUR_NAME = re.compile(r"(?i)\b(layer45|l45)[-_\w.]*")
KNOWN_MASKS = {"Tailscale": 0x00FF0000, "Calico": 0xFFFF0000, "Cilium": 0x0F00, "kube-proxy": 0xC000}
KNOWN_NAMES = {
    "Tailscale": r"\bts-",
    "Calico": r"\bcali-|\bcali",
    "Cilium": r"CILIUM",
    "kube-proxy": r"KUBE-",
}
IPTABLES_TABLE = re.compile(r"table ip6? (filter|nat|mangle|raw|security) ")

# iptables-save says --set-xmark V/M, --mark V/M; --nfmask and --ctmask when it saves and restores
IPTABLES_MARK = re.compile(
    r"--(?:set-x?mark|mark|nfmask|ctmask)\s+(0x[0-9a-f]+|\d+)(?:/(0x[0-9a-f]+|\d+))?", re.I
)
IPTABLES_COPY = re.compile(r"--(?:save|restore)-mark\b")
NFT_MARK = re.compile(r"\b(?:meta|ct)\s+mark\b(.*)", re.I)
NFT_MASK = re.compile(r"(?:&|\bor\b|\||\band\b)\s*(0x[0-9a-f]+|\d+)", re.I)
IPTABLES_QUEUE = re.compile(r"--queue-(?:num|balance)\s+(\d+)(?::(\d+))?")
NFT_QUEUE = re.compile(r"\bqueue\b.*?\b(?:num|to)\s+(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Use:
    """Mark bits a rule of someone else reads or writes."""

    rule: str
    mask: int


def examine(mark_mask: int, first_queue: int) -> list[Finding]:
    """Every check of this file."""
    lines = [
        *_output("iptables-save"),
        *_output("ip6tables-save"),
        *_nft_lines(_output("nft", "list", "ruleset")),
    ]
    uses = [*mark_uses(lines), *routing_uses("".join(_output("ip", "-json", "rule", "show")))]
    return [mark_clash(mark_mask, uses), known_ranges(mark_mask), queue_clash(first_queue, lines)]


def mark_clash(mark_mask: int, uses: list[Use]) -> Finding:
    """Rules that are not ours and touch our bits."""
    clashes = [use for use in uses if use.mask & mark_mask]
    if os.geteuid() != 0:
        return found("clashes", "mark bits", False, "not looked at: needs root", "sudo layer45 doctor")
    shown = "; ".join(dict.fromkeys(_shown(use) for use in clashes[:3]))
    free = free_mask(mark_mask, uses)
    mend = f"set mark_mask = {free:#x} in layer45.toml" if free else "narrow the other rules' masks"
    return found("clashes", "mark bits", not clashes, shown or f"{mark_mask:#x} is ours alone", mend)


def _shown(use: Use) -> str:
    owners = [name for name, pattern in KNOWN_NAMES.items() if re.search(pattern, use.rule)]
    return f"{owners[0] if owners else 'a rule'} uses {use.mask:#x}: {use.rule}"


def free_mask(mark_mask: int, uses: list[Use]) -> int:
    """As many bits as mark_mask has that no rule uses, nor a well-known program if that can be; or 0."""
    used = 0
    for use in uses:
        used |= use.mask
    known = used
    for mask in KNOWN_MASKS.values():
        known |= mask
    wanted = mark_mask.bit_count()
    return _lowest_free(known, wanted) or _lowest_free(used, wanted)


def _lowest_free(taken: int, wanted: int) -> int:
    free = [1 << place for place in range(32) if not taken >> place & 1]
    return sum(free[:wanted]) if len(free) >= wanted else 0


def known_ranges(mark_mask: int) -> Finding:
    """The ranges that widespread programs take when they are installed later."""
    overlaps = [f"{name} ({mask:#x})" for name, mask in KNOWN_MASKS.items() if mask & mark_mask]
    return found("clashes", "well-known mark ranges", not overlaps, ", ".join(overlaps) or "none overlaps",
                 "set mark_mask = 0x30ff in layer45.toml if you use these programs")  # fmt: skip


def mark_uses(lines: list[str]) -> list[Use]:
    """The mark bits of every rule that is not ours."""
    return [Use(line.strip(), mask) for line in lines if not OUR_NAME.search(line) for mask in _masks(line)]


def _masks(line: str) -> Iterator[int]:
    for value, mask in IPTABLES_MARK.findall(line):
        named = re.search(rf"--(?:nf|ct)mask\s+{value}", line)
        yield int(value, 0) if named else int(mask, 0) if mask else WHOLE_MARK
    if IPTABLES_COPY.search(line) and not re.search(r"--(?:nf|ct)mask", line):
        yield WHOLE_MARK
    if (rest := NFT_MARK.search(line)) is not None:
        yield _nft_mask(rest.group(1))


def _nft_mask(rest: str) -> int:
    """`mark & M == V` looks at M; `mark set mark & K | V` leaves K alone; else it is all 32 bits."""
    numbers = [int(number, 0) for number in NFT_MASK.findall(rest)]
    if not numbers:
        return WHOLE_MARK
    if not rest.lstrip().startswith("set"):
        return numbers[0]
    if "&" in rest or " and " in rest:
        return ~numbers[0] & WHOLE_MARK | (numbers[1] if len(numbers) > 1 else 0)
    return numbers[0]


def routing_uses(document: str) -> list[Use]:
    """The marks that `ip rule` looks at."""
    try:
        rules = json.loads(document or "[]")
    except json.JSONDecodeError:
        return []
    return [
        Use(f"ip rule {rule.get('priority')}", int(rule.get("fwmask", hex(WHOLE_MARK)), 0))
        for rule in rules
        if "fwmark" in rule
    ]


def queue_clash(first_queue: int, lines: list[str]) -> Finding:
    """Rules and programs of others with a queue number from ours on."""
    theirs = [line for line in lines if not OUR_NAME.search(line)]
    numbers = {n for line in theirs for n in _queues(line)}
    near = sorted(n for n in numbers if first_queue <= n < first_queue + 64)
    detail = f"other rules use queue {near[0]}" if near else f"free from {first_queue} on"
    return found(
        "clashes", "queue numbers", not near, detail, f"set first_queue = {first_queue + 128} in layer45.toml"
    )


def _queues(line: str) -> Iterator[int]:
    for pattern in (IPTABLES_QUEUE, NFT_QUEUE):
        for first, last in pattern.findall(line):
            yield from range(int(first), int(last or first) + 1)


def _nft_lines(lines: list[str]) -> list[str]:
    """Without tables of ours; and what iptables made through nft is in iptables-save already."""
    kept, ours = [], False
    for line in lines:
        if line.startswith("table "):
            ours = bool(OUR_NAME.search(line) or IPTABLES_TABLE.match(line))
        if not ours:
            kept.append(line)
    return kept


def _output(*command: str) -> list[str]:
    """A program's lines; none when it is missing or fails."""
    if shutil.which(command[0], path=search_path()) is None:
        return []
    try:
        done = subprocess.run(command, env={**os.environ, "PATH": search_path()}, capture_output=True,
                              text=True, timeout=READ_TIME_OUT_S, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()
