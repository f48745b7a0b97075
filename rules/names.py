"""The names our chains and tables bear, so that two daemons' never meet."""

import hashlib
import re

PREFIX = "L45-"
_PLAIN = re.compile(r"[A-Za-z0-9_]{1,10}")


def owner_tag(owner: str) -> str:
    """At most 10 letters, digits or underscores; the owner itself where it is short and plain enough."""
    if _PLAIN.fullmatch(owner):
        return owner
    readable = re.sub(r"[^A-Za-z0-9]", "", owner)[:3]
    return f"{readable}_{hashlib.sha256(owner.encode()).hexdigest()[:6]}"


def chain_prefix(owner: str) -> str:
    """What all of an owner's iptables chains begin with, and nobody else's."""
    return f"{PREFIX}{owner_tag(owner)}-"


def table_name(owner: str) -> str:
    """The owner's nft table."""
    return f"layer45_{owner_tag(owner)}"


def comment(text: str) -> str:
    """Text that both iptables and nft take between double quotes."""
    return re.sub(r"[^ -~]|[\"\\]", "_", text)[:120]
