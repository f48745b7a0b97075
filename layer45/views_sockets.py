"""Sockets and what became of them, as text."""

from collections.abc import Iterator
from typing import Any

from layer45.explain import told
from layer45.output import print_table
from layer45.views import readable_bytes, readable_duration


def show_attached(done: dict[str, Any], what: str) -> None:
    """attach, detach: one line, and one more for each thing that was left alone."""
    if done["note"]:
        print(done["note"])
        return
    of = f"of {done['program']} (pid {done['pid']})"
    print(f"{done['policy']}: {_counted(done['sockets'], 'socket')} {of} {what}")
    if done["connections"]:
        print(f"kept as it was: {_counted(done['connections'], 'TCP connection')} among them")
    if done["also"]:
        print(f"taken from them, too, for they ask for the same owner: {', '.join(done['also'])}")
    if done["elsewhere"]:
        print(f"left alone: {_counted(done['elsewhere'], 'socket')} in other network namespaces")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def show_sockets(sockets: list[dict[str, Any]], everything: bool) -> None:
    """sockets: one line each; with --all, why, in the last column."""
    if not sockets:
        print("no sockets" if everything else "no policy has a socket; --all shows the others, and why")
        return
    heads = ("PROGRAM", "PID", "USER", "CGROUP", "PROTO", "LOCAL", "REMOTE", "STATE", "POLICY", "TAG")
    traffic = ("PACKETS", "BYTES", "SINCE")
    why = ("WHY",) if everything else ()
    rows = [(*_row(each), *((each["why"],) if everything else ())) for each in sockets]
    print_table((*heads, *traffic, *why), rows)


def _row(each: dict[str, Any]) -> tuple[object, ...]:
    seen = each["flows"] > 0
    return (
        each["program"] or "-", "-" if each["pid"] is None else each["pid"], each["user"], _cgroup(each),
        each["protocol"], each["local"], each["remote"], each["state"],
        _policies(each) or "-", _tag(each["tag"]),
        each["packets"] if seen else "-", readable_bytes(each["bytes"]) if seen else "-",
        readable_duration(each["since_s"]) if seen else "-",
    )  # fmt: skip


def _cgroup(each: dict[str, Any]) -> str:
    return "gone" if each["cgroup"] is None else f"/{each['cgroup']}"


def _policies(each: dict[str, Any]) -> str:
    """A policy that has some packets only bears a question mark."""
    return ", ".join(p["policy"] + ("?" if p["holds"] == "packet" else "") for p in each["policies"])


def _tag(tag: dict[str, Any]) -> str:
    if tag["state"] != "seen":
        return "-" if tag["state"] == "unasked" else str(tag["state"])
    return ", ".join(tag["policies"]) or "none"


MEANING = {"yes": "yes", "no": "no", "packet": "some packets"}


def show_explained(sockets: list[dict[str, Any]]) -> None:
    """explain: each socket with a table of policies."""
    for number, each in enumerate(sockets):
        if number:
            print()
        who = f"{each['program']} (pid {each['pid']})" if each["pid"] else "no process"
        print(f"{each['protocol']} {each['local']} → {each['remote']}, {each['state']}: {who}")
        print(f"policy: {_policies(each) or 'none'}")
        if each["connection"]:
            print(f"why: {each['why']}; as a new one it would get:")
        print_table(("POLICY", "SELECTS", "WHY"), list(_answer_rows(each["answers"])))


def _answer_rows(answers: list[dict[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Behind the first that has all packets, the others have none."""
    first = ""
    for each in answers:
        why = told(each).removeprefix(f"{each['policy']}: ")
        if first and each["holds"] != "no":
            why += f"; {first} comes first"
        yield each["policy"], MEANING[each["holds"]], why
        first = first or (each["policy"] if each["holds"] == "yes" else "")
