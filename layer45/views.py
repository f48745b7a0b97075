"""The daemon's and the plan's state as tables."""

from collections.abc import Iterator
from typing import Any

from layer45.doctor import Finding, fit
from layer45.figures import figures, figures_line
from layer45.output import print_table

UNITS = ("B", "kB", "MB", "GB", "TB")


def show_findings(findings: list[Finding]) -> None:
    """doctor: every check, then what mends those that are not ok."""
    rows = [(f.area, f.check, f.result, f.detail) for f in findings]
    print_table(("AREA", "CHECK", "RESULT", "DETAIL"), rows)
    wanting = [f for f in findings if f.result != "ok"]
    if wanting:
        print()
    print_table(("TO MEND", "COMMAND"), [(f.check, f.mend) for f in wanting])
    print(f"\n{'This host can run the daemon.' if fit(findings) else 'This host cannot run the daemon yet.'}")


def show_report(report: dict[str, Any]) -> None:
    """check: one line a policy, if all is well."""
    if not report["ok"]:
        return
    print_table(
        ("POLICY", "STATE", "PRIORITY", "CLASS", "PATH", "QUEUE", "CHAIN", "GROWTH", "ON FAILURE"),
        [_report_row(policy) for policy in report["policies"]],
    )
    count = len(report["policies"])
    print(f"ok: {count} {'policy' if count == 1 else 'policies'}")


def _report_row(policy: dict[str, Any]) -> tuple[object, ...]:
    """A policy on standby has no class, no queue and no chain."""
    queue = policy.get("queue")
    queues = [queue["first"], queue["first"] + queue["workers"] - 1] if queue else None
    growth = _growth(policy["growth_bytes"]) if queue else "-"
    chain = _arrow(policy["modules"]) if queue else "-"
    return (
        *(policy[key] for key in ("name", "state", "priority")),
        *(
            policy.get("class", "-"),
            policy.get("path", "-"),
            _span(queues),
            chain,
            growth,
            policy["on_failure"],
        ),
    )


def _growth(growth: dict[str, int]) -> str:
    return f"{growth['front']}+{growth['back']} B"


def _arrow(chain: list[str]) -> str:
    return " → ".join(chain) or "(empty)"


def _span(numbers: list[int] | None) -> str:
    if not numbers:
        return "-"
    return str(numbers[0]) if numbers[0] == numbers[-1] else f"{numbers[0]}-{numbers[-1]}"


def show_status(state: dict[str, Any]) -> None:
    """status: the daemon in a few lines, then its policies and queues."""
    rules, tagger = state["rules"], state.get("tagger")
    up = readable_duration(state["uptime_s"])
    print(f"daemon      pid {state['pid']}, up {up}, generation {state['generation']}")
    print(f"config      {state['config']}")
    print(f"socket      {state['control_socket']}")
    print(f"namespace   net:[{state['namespace']}]")
    print(f"rules       {rules['backend']}, owner {rules['owner']}")
    if tagger:
        reason = f": {tagger['reason']}" if tagger["reason"] else ""
        print(f"tagger      {'on' if tagger['on'] else 'off'}{reason}")
    _show_privileges(state.get("privileges", {"threads": [], "problems": []}))
    last = state.get("last_reload")
    if last and not last["ok"]:
        print(f"last reload failed: {'; '.join(last['problems'])}")
    for warning in state["warnings"]:
        print(f"warning     {warning}")
    for policy in state["policies"]:
        if policy["disabled"]:
            print(f"disabled    {_disabled_line(policy)}")
    for reason in {policy["path_reason"]: None for policy in state["policies"] if policy["path_reason"]}:
        names = ", ".join(each["name"] for each in state["policies"] if each["path_reason"] == reason)
        print(f"queue       {names}: not in the kernel: {reason}")
    print()
    _show_policies(state["policies"])
    print()
    _show_queues(state["queues"])


def _show_privileges(told: dict[str, Any]) -> None:
    for line in (*map(_privileges, told["threads"]), *told["problems"]):
        print(f"privileges  {line}")


def _privileges(each: dict[str, Any]) -> str:
    raisable = f", can raise {' '.join(each['raisable'])}" if each["raisable"] else ""
    filtered = ", system calls filtered" if each["seccomp"] != "off" else ""
    new = "" if each["no_new_privs"] else ", programs can gain more"
    name = f"{each['count']} {each['thread']}" if each["count"] > 1 else each["thread"]
    return f"{name}: {' '.join(each['effective']) or 'none'}{raisable}{filtered}{new}"


def _disabled_line(policy: dict[str, Any]) -> str:
    why = policy["disabled"]
    module = f"module {why['module']} (place {why['instance']} in the chain)"
    failed = f"failed {why['failures']} of {why['packets']} packets in {why['seconds']} s: {why['reason']}"
    packets = "pass as they are" if policy["on_failure"] == "open" else "are dropped"
    back = f"layer45 activate {policy['name']} puts it back"
    return f"{policy['name']}, since {why['since']}: {module} {failed}; its packets {packets}; {back}"


def _show_policies(policies: list[dict[str, Any]]) -> None:
    print_table(
        (
            "POLICY",
            "STATE",
            "SINCE",
            "BY",
            "VERSION",
            "FLOWS",
            "CLASS",
            "PATH",
            "QUEUES",
            "PACKETS",
            "BYTES",
            "CHAIN",
        ),
        [row for policy in policies for row in (_policy_row(policy), *_old_rows(policy))],
    )


def _policy_row(p: dict[str, Any]) -> tuple[object, ...]:
    newest = next((each for each in p.get("versions", ()) if each["newest"]), None)
    if newest and p["path"] == "kernel":  # which knows no flows
        newest = {**newest, "flows": "-"}
    return (
        p["name"],
        p["state"] + ", disabled" * bool(p["disabled"]),
        *(p[key] for key in ("state_since", "state_source")),
        *(newest[key] if newest else "-" for key in ("version", "flows")),
        *(
            p["class"],
            p["path"] or "-",
            _span(p["queues"]),
            p["packets"],
            readable_bytes(p["bytes"]),
            _arrow(p["chain"]),
        ),
    )


def _old_rows(p: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """Versions that only the flows have which began with them."""
    for each in p.get("versions", ()):
        if not each["newest"]:
            old = (each["name"], "old", each["since"], "version", each["version"], each["flows"])
            yield (*old, each["class"], "", _span(each["queues"]), *("" for _ in range(3)))


def _show_queues(queues: list[dict[str, Any]]) -> None:
    """Whatever the engine says of each queue."""
    if queues:
        print_table([key.upper() for key in queues[0]], [tuple(queue.values()) for queue in queues])


def show_stats(document: dict[str, Any]) -> None:
    """stats: one line a counter; a module's ratios behind its counters."""
    helps = document["help"]
    print_table(
        ("ENGINE", "VALUE", "MEANING"), [(n, v, helps.get(n, "")) for n, v in document["engine"].items()]
    )
    _show_kernel(document.get("kernel", {}), helps)
    for name, policy in document["policies"].items():
        print()
        print_table((f"POLICY {name}", "VALUE", "MEANING"), list(_policy_rows(policy, helps)))


def _show_kernel(counted: dict[str, int], helps: dict[str, str]) -> None:
    if any(counted.values()):
        print()
        rows = [(name, value, helps.get(f"kernel.{name}", "")) for name, value in counted.items()]
        print_table(("KERNEL", "VALUE", "MEANING"), rows)


def _policy_rows(policy: dict[str, Any], helps: dict[str, str]) -> Iterator[tuple[str, object, str]]:
    for key, value in policy.items():
        if key in helps:
            yield key, value, helps[key]
    for place, instance in enumerate(policy["instances"], 1):
        module = instance["module"]
        for name, value in figures(instance):
            yield f"{place} {module}: {name}", value, helps.get(f"{module}.{name}", "")


def show_flows(flows: list[dict[str, Any]]) -> None:
    """flows: one line each; what modules counted in it, if any count by flow, in the last column."""
    if not flows:
        print("no flows")
        return
    keys = [key for key in flows[0] if key != "instances"]
    rows = [tuple(_cell(flow[key]) for key in keys) for flow in flows]
    if any(flow["instances"] for flow in flows):
        keys.append("counted")
        rows = [(*row, figures_line(flow["instances"])) for row, flow in zip(rows, flows, strict=True)]
    print_table([key.upper() for key in keys], rows)


def _cell(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) == 2:
        host, port = value
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return round(value, 1) if isinstance(value, float) else value


def readable_duration(seconds: float) -> str:
    """In the two largest units."""
    hours, rest = divmod(int(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{seconds:.1f} s"
    )


def readable_bytes(count: int) -> str:
    """In a unit that leaves up to three digits."""
    amount = float(count)
    for unit in UNITS:
        if amount < 1000 or unit == UNITS[-1]:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError
