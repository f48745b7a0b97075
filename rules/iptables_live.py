"""Puts a plan's chains into the tables of this network namespace, and takes them out again.

One call a family, with a transaction for each table; if one fails, all get back what they had. Chains of the
same name are refilled in that transaction, so an unchanged policy is never without its rules, and installing
twice is installing once. Our jumps stand last in OUTPUT and INPUT: a packet that returns from a queue goes on
behind its hook, and so skips what stands behind our jump.

iptables-nft makes the table and its base chains when they are first used. To leave no trace, an empty chain
says which of them were made for us (L45-new-…); whoever of our owners leaves last removes them. The table
itself remembers, so another process can clean up after a crash. Where a hook of the raw table was made for a
plan that no longer needs it, it stays until its owner goes: with a hook go the packets that wait in any
queue.

A table that no plan of ours needed is never looked at, for legacy iptables makes a table when it is.
"""

import functools
import json
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from layer45.rules import cgroups, iptables_raw
from layer45.rules.command import run
from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.iptables import TABLES, appended, declare, jumps, render, restore_text
from layer45.rules.iptables_match import in_cgroup
from layer45.rules.names import PREFIX, chain_prefix

TOOLS = {4: "iptables", 6: "ip6tables"}
NFT_FAMILY = {4: "ip", 6: "ip6"}
MADE = f"{PREFIX}new-"
MADE_TABLE = f"{MADE}table"

Chains = dict[str, list[str]]
T = TypeVar("T")


@dataclass(frozen=True)
class State:
    """A table of a family as iptables-save tells it. policies: of the base chains; "-" for ours."""

    family: int
    table: str
    policies: dict[str, str]
    rules: Chains  # those of each chain

    def chains(self, prefix: str) -> Chains:
        """The chains whose names begin so, with their rules."""
        return {name: self.rules.get(name, []) for name in self.policies if name.startswith(prefix)}

    def jumps(self, prefix: str) -> list[str]:
        """The rules of base chains that lead to such a chain, each as "CHAIN REST"."""
        hooks = TABLES[self.table]
        return [
            f"{hook} {rule}" for hook in hooks for rule in self.rules.get(hook, []) if f"-j {prefix}" in rule
        ]

    def removable(self, hook: str) -> bool:
        """Whether nothing but our jumps is left in a base chain."""
        foreign = [rule for rule in self.rules.get(hook, []) if f"-j {PREFIX}" not in rule]
        return self.policies.get(hook) == "ACCEPT" and not foreign


def install(plan: RulePlan) -> None:
    """Make this namespace's rules of plan.owner equal to the plan. Raises RulesError and changes nothing."""
    prefix = chain_prefix(plan.owner)
    of_missing = cgroups.of_missing(plan, in_cgroup)
    found = _of_each(families(), lambda family: _before_and_wanted(plan, family, of_missing))
    for before, _ in found.values():
        _refuse_clash(plan, before["mangle"])

    def put_in(family: int) -> None:
        before, wanted = found[family]
        _replace(before, family, prefix, wanted)

    def put_back(family: int) -> None:
        had = {table: state.chains(prefix) for table, state in found[family][0].items()}
        _replace(_read_all(family), family, prefix, had)

    try:
        _of_each(found, put_in)
    except RulesError:
        _of_each(found, put_back)
        raise


def _before_and_wanted(
    plan: RulePlan, family: int, of_missing: Callable[[str], bool]
) -> tuple[dict[str, State], dict[str, Chains]]:
    """By table. The rules are made while another program lists those of before."""
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(_read_all, family)
        full = {"mangle": render(plan, family), "raw": iptables_raw.render(plan, family)}
        wanted = {table: _without(chains, of_missing) for table, chains in full.items()}
        return reading.result(), wanted


def _without(chains: Chains, unwanted: Callable[[str], bool]) -> Chains:
    return {name: [rule for rule in rules if not unwanted(rule)] for name, rules in chains.items()}


def _of_each(numbers: Iterable[int], work: Callable[[int], T]) -> dict[int, T]:
    """For the families at the same time: other programs do most of it. The first error, in the end."""
    with ThreadPoolExecutor() as threads:
        running = {family: threads.submit(work, family) for family in numbers}
    return {family: future.result() for family, future in running.items()}


def remove(owner: str) -> None:
    """Take the owner's rules out, whoever put them in; nothing to do is no error."""
    for family in families():
        _remove(family, chain_prefix(owner))


def families() -> list[int]:
    """The IP versions this host has tools and a kernel for."""
    known = {4: True, 6: Path("/proc/net/if_inet6").exists()}
    return [family for family in TOOLS if known[family] and shutil.which(f"{TOOLS[family]}-restore")]


def installed(owner: str) -> bool:
    """Whether any chain of the owner is in this namespace, or what only the last owner would have left."""
    prefix = chain_prefix(owner)
    return any(_has(state, prefix) for family in families() for state in _read_all(family).values())


def _has(state: State, prefix: str) -> bool:
    left = state.chains(PREFIX)
    return bool(left) and (bool(state.chains(prefix)) or all(name.startswith(MADE) for name in left))


def _read_all(family: int) -> dict[str, State]:
    """In one call without a table's name, which is why legacy iptables makes none."""
    states = {table: State(family, table, {}, {}) for table in TABLES}
    state: State | None = None
    for line in run([f"{TOOLS[family]}-save"]).splitlines():
        if line.startswith("*"):
            state = states.get(line[1:])
        elif state and line.startswith(":"):
            name, policy = line[1:].split()[:2]
            state.policies[name] = policy
        elif state and line.startswith("-A "):
            chain, _, rule = line[3:].partition(" ")
            state.rules.setdefault(chain, []).append(rule)
    return states


def _refuse_clash(plan: RulePlan, state: State) -> None:
    mine = plan.marks.class_mask | plan.marks.exempt_bit
    for name, rules in state.chains(PREFIX).items():
        if name.endswith("-in") and not name.startswith(chain_prefix(plan.owner)) and rules:
            found = re.search(r"--set-xmark 0x0/(0x[0-9a-f]+)", rules[0])
            if found and int(found[1], 16) & mine:
                raise RulesError(
                    f"another daemon here (chain {name}) uses the mark bits {found[1]}; "
                    f"expected a mark_mask without them, not {mine:#x}"
                )


def _replace(states: dict[str, State], family: int, prefix: str, wanted: dict[str, Chains]) -> None:
    """All tables at once; states: what they are. None wanted: as if we had never been there."""
    if not any(wanted.values()):
        _remove(family, prefix)
        return
    parts = {table: _part(states[table], prefix, chains) for table, chains in wanted.items()}
    _commit(family, dict(sorted(parts.items(), reverse=bool(not wanted["raw"]))))


def _part(state: State, prefix: str, chains: Chains) -> list[str]:
    old = state.chains(prefix)
    if chains:
        return [*_mark_made(state, prefix), *_swap(state, prefix, old, chains)]
    return _take_out(state, prefix)


def _remove(family: int, prefix: str) -> None:
    """The raw table first: what it has sent to the queue still needs to leave at mangle."""
    states = [state for state in reversed(_read_all(family).values()) if state.chains(PREFIX)]
    parts = {state.table: _take_out(state, prefix) + _unmake(state, prefix) for state in states}
    _commit(family, parts)
    for table in parts:
        _unmake_table(family, table)


def _commit(family: int, parts: dict[str, list[str]]) -> None:
    text = "".join(restore_text(table, lines) for table, lines in parts.items() if lines)
    if text:
        run([f"{TOOLS[family]}-restore", "--noflush", "--wait", "10"], text)


def _swap(state: State, prefix: str, old: Chains, chains: Chains) -> list[str]:
    there = state.jumps(prefix)
    wanted = [jump for jump in jumps(state.table, prefix) if jump.removeprefix("-A ") not in there]
    gone = {name: old[name] for name in old if name not in chains}
    return [*declare(chains), *wanted, *appended(chains), *_erase(gone)]


def _take_out(state: State, prefix: str) -> list[str]:
    return [*(f"-D {jump}" for jump in state.jumps(prefix)), *_erase(state.chains(prefix))]


def _erase(chains: Chains) -> list[str]:
    return [*(f"-F {name}" for name in chains), *(f"-X {name}" for name in chains)]


def _mark_made(state: State, prefix: str) -> list[str]:
    """Declare what iptables-nft is about to make for us: nothing where we are already."""
    if len(state.jumps(prefix)) == len(TABLES[state.table]) or not _is_nft(state.family):
        return []
    existing = _nft_chains(state.family, state.table)
    made = [f"{MADE}{hook}" for hook in TABLES[state.table] if existing is None or hook not in existing]
    return [f":{name} - [0:0]" for name in (made if existing is not None else [*made, MADE_TABLE])]


def _unmake(state: State, prefix: str) -> list[str]:
    """Remove the base chains made for us, if we are the last owner and nobody else took to using them."""
    if _others(state, prefix):
        return []
    hooks = [hook for hook in TABLES[state.table] if f"{MADE}{hook}" in state.policies]
    emptied = [f"-X {hook}" for hook in hooks if state.removable(hook)]
    return [*emptied, *(f"-X {MADE}{hook}" for hook in hooks)]


def _others(state: State, prefix: str) -> list[str]:
    return [name for name in state.chains(PREFIX) if not name.startswith((prefix, MADE))]


def _unmake_table(family: int, table: str) -> None:
    left = _nft_chains(family, table) if _is_nft(family) else None
    if not left or MADE_TABLE not in left or any(n.startswith(PREFIX) for n in left if n != MADE_TABLE):
        return
    if left == {MADE_TABLE}:
        run(["nft", "delete", "table", NFT_FAMILY[family], table])
    else:
        _commit(family, {table: [f"-X {MADE_TABLE}"]})


def _is_nft(family: int) -> bool:
    """Whether iptables is the nft variant, and nft there to look behind it."""
    return bool(shutil.which("nft")) and "nf_tables" in _version(TOOLS[family])


@functools.cache
def _version(tool: str) -> str:
    return run([tool, "--version"])


def _nft_chains(family: int, table: str) -> set[str] | None:
    """Chains of a table; None where there is no such table."""
    tables, chains = (
        [entry[kind] for entry in _nft_list(f"{kind}s", family) if kind in entry]
        for kind in ("table", "chain")
    )
    if not any(each["name"] == table for each in tables):
        return None
    return {chain["name"] for chain in chains if chain["table"] == table}


def _nft_list(what: str, family: int) -> list[dict[str, dict[str, str]]]:
    listed: list[dict[str, dict[str, str]]] = json.loads(
        run(["nft", "--json", "list", what, NFT_FAMILY[family]])
    )["nftables"]
    return listed
