"""Puts a plan's chains into the mangle tables of this network namespace, and takes them out again.

One transaction a family; if the second fails, the first gets back what it had. Chains of the same name are
refilled in that transaction, so an unchanged policy is never without its rules, and installing twice is
installing once. Our jumps stand last in OUTPUT and INPUT: a packet that returns from a queue goes on
behind its hook, and so skips what stands behind our jump.

iptables-nft makes the table and its base chains when they are first used. To leave no trace, an empty
chain says which of them were made for us (L45-new-…); whoever of our owners leaves last removes them. The
table itself remembers, so another process can clean up after a crash.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from layer45.rules import cgroups
from layer45.rules.command import run
from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.iptables import HOOKS, appended, declare, render, restore_text
from layer45.rules.names import PREFIX, chain_prefix

TOOLS = {4: "iptables", 6: "ip6tables"}
NFT_FAMILY = {4: "ip", 6: "ip6"}
MADE = f"{PREFIX}new-"
MADE_TABLE = f"{MADE}table"

Chains = dict[str, list[str]]


@dataclass(frozen=True)
class State:
    """A family's mangle table as iptables-save tells it. policies: of the base chains; "-" for ours."""

    policies: dict[str, str]
    rules: list[tuple[str, str]]  # chain, the rest

    def chains(self, prefix: str) -> Chains:
        """The chains whose names begin so, with their rules."""
        names = [name for name in self.policies if name.startswith(prefix)]
        return {name: [rule for chain, rule in self.rules if chain == name] for name in names}

    def jumps(self, prefix: str) -> list[str]:
        """The rules of base chains that lead to such a chain, each as "CHAIN REST"."""
        return [f"{chain} {rule}" for chain, rule in self.rules if chain in HOOKS and f"-j {prefix}" in rule]

    def removable(self, hook: str) -> bool:
        """Whether nothing but our jumps is left in a base chain."""
        foreign = [rule for chain, rule in self.rules if chain == hook and f"-j {PREFIX}" not in rule]
        return self.policies.get(hook) == "ACCEPT" and not foreign


def install(plan: RulePlan) -> None:
    """Make this namespace's rules of plan.owner equal to the plan. Raises RulesError and changes nothing."""
    cgroups.require(plan)
    prefix = chain_prefix(plan.owner)
    before = {family: _read(family) for family in families()}
    for state in before.values():
        _refuse_clash(plan, state)
    done: list[int] = []
    try:
        for family in before:
            _replace(family, prefix, render(plan, family))
            done.append(family)
    except RulesError:
        for family in done:
            _replace(family, prefix, before[family].chains(prefix))
        raise


def remove(owner: str) -> None:
    """Take the owner's rules out, whoever put them in; nothing to do is no error."""
    for family in families():
        _replace(family, chain_prefix(owner), {})


def families() -> list[int]:
    """The IP versions this host has tools and a kernel for."""
    known = {4: True, 6: Path("/proc/net/if_inet6").exists()}
    return [family for family in TOOLS if known[family] and shutil.which(f"{TOOLS[family]}-restore")]


def installed(owner: str) -> bool:
    """Whether any chain of the owner is in this namespace, or what only the last owner would have left."""
    return any(_has(_read(family), chain_prefix(owner)) for family in families())


def _has(state: State, prefix: str) -> bool:
    left = state.chains(PREFIX)
    return bool(left) and (bool(state.chains(prefix)) or all(name.startswith(MADE) for name in left))


def _read(family: int) -> State:
    policies: dict[str, str] = {}
    rules: list[tuple[str, str]] = []
    for line in run([f"{TOOLS[family]}-save", "-t", "mangle"]).splitlines():
        if line.startswith(":"):
            name, policy = line[1:].split()[:2]
            policies[name] = policy
        elif line.startswith("-A "):
            chain, _, rule = line[3:].partition(" ")
            rules.append((chain, rule))
    return State(policies, rules)


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


def _replace(family: int, prefix: str, chains: Chains) -> None:
    state = _read(family)
    old = state.chains(prefix)
    if chains:
        _commit(family, [*_mark_made(family), *_swap(state, prefix, old, chains)])
    elif old or state.chains(MADE):
        _commit(family, [*_take_out(state, prefix, old), *_unmake(state, prefix)])
        _unmake_table(family)


def _commit(family: int, lines: list[str]) -> None:
    run([f"{TOOLS[family]}-restore", "--noflush", "--wait", "10"], restore_text(lines))


def _swap(state: State, prefix: str, old: Chains, chains: Chains) -> list[str]:
    wanted = [f"{hook} -j {prefix}{part}" for hook, part in HOOKS.items()]
    jumps = [f"-A {jump}" for jump in wanted if jump not in state.jumps(prefix)]
    gone = {name: old[name] for name in old if name not in chains}
    return [*declare(chains), *jumps, *appended(chains), *_erase(gone)]


def _take_out(state: State, prefix: str, old: Chains) -> list[str]:
    return [*(f"-D {jump}" for jump in state.jumps(prefix)), *_erase(old)]


def _erase(chains: Chains) -> list[str]:
    return [*(f"-F {name}" for name in chains), *(f"-X {name}" for name in chains)]


def _mark_made(family: int) -> list[str]:
    """Declare what iptables-nft is about to make for us."""
    if not _is_nft(family):
        return []
    existing = _nft_chains(family)
    made = [f"{MADE}{hook}" for hook in HOOKS if existing is None or hook not in existing]
    return [f":{name} - [0:0]" for name in (made if existing is not None else [*made, MADE_TABLE])]


def _unmake(state: State, prefix: str) -> list[str]:
    """Remove the base chains made for us, if we are the last owner and nobody else took to using them."""
    if _others(state, prefix):
        return []
    hooks = [hook for hook in HOOKS if f"{MADE}{hook}" in state.policies]
    emptied = [f"-X {hook}" for hook in hooks if state.removable(hook)]
    return [*emptied, *(f"-X {MADE}{hook}" for hook in hooks)]


def _others(state: State, prefix: str) -> list[str]:
    return [name for name in state.chains(PREFIX) if not name.startswith((prefix, MADE))]


def _unmake_table(family: int) -> None:
    left = _nft_chains(family) if _is_nft(family) else None
    if not left or MADE_TABLE not in left or any(n.startswith(PREFIX) for n in left if n != MADE_TABLE):
        return
    if left == {MADE_TABLE}:
        run(["nft", "delete", "table", NFT_FAMILY[family], "mangle"])
    else:
        _commit(family, [f"-X {MADE_TABLE}"])


def _is_nft(family: int) -> bool:
    """Whether iptables is the nft variant, and nft there to look behind it."""
    return bool(shutil.which("nft")) and "nf_tables" in run([TOOLS[family], "--version"])


def _nft_chains(family: int) -> set[str] | None:
    """Chains of the mangle table; None where there is no such table."""
    tables, chains = (
        [entry[kind] for entry in _nft_list(f"{kind}s", family) if kind in entry]
        for kind in ("table", "chain")
    )
    if not any(table["name"] == "mangle" for table in tables):
        return None
    return {chain["name"] for chain in chains if chain["table"] == "mangle"}


def _nft_list(what: str, family: int) -> list[dict[str, dict[str, str]]]:
    listed: list[dict[str, dict[str, str]]] = json.loads(
        run(["nft", "--json", "list", what, NFT_FAMILY[family]])
    )["nftables"]
    return listed
