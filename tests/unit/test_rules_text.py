"""The rules as text, against files a person has read.

After a deliberate change of the rules, write the files anew and read the difference before committing it:

    python -m tests.unit.test_rules_text
"""

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from layer45.rules import backend, cgroups, iptables, iptables_raw, nft, pins
from layer45.rules.diversion import Diversion, MarkLayout, QueueGroup, RulePlan, Selector
from layer45.rules.errors import RulesError
from layer45.rules.kernel_chain import KernelChain, Step
from layer45.rules.names import chain_prefix, owner_tag, table_name

GOLDEN = Path(__file__).parent / "golden"
PINS = Path("/sys/fs/bpf")
NETWORKS = tuple(map(ip_network, ("10.0.0.0/8", "192.168.0.0/16", "fd00::/8")))
OPEN, CLOSED = QueueGroup(4500, 1, True), QueueGroup(4510, 3, False)
COPIES, SPREAD_COPIES = QueueGroup(4520, 1, True, copies=True), QueueGroup(4530, 2, True, copies=True)
VOICE = Selector(("udp",), remote=NETWORKS, remote_port=((5004, 5100),))
MANY = Selector(
    ("udp", "tcp"), local=(ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")),
    local_port=((80, 80), (443, 443)), user=(1000, 1001), group=(100, 101), cgroup=("a", "b/c"),
)  # fmt: skip
DROPPING = KernelChain("", ("udp", "tcp"), (Step(("egress",), drops=True),))
MARKING = (
    Step(("egress",), (1, 9), dscp=1),
    Step(("egress", "ingress"), drops=True),
    Step(("ingress",), dscp=46),
)
GUEST = Selector(user=(1001,))
PLANS = {
    "empty": (),
    "addresses": (("voice", VOICE, None, OPEN),),
    "program": (
        ("voice", Selector(program=("iperf3", "/usr/bin/linphone"), user=(1000,)), None, OPEN),
        ("names", Selector(("udp",)), Selector(program=("dig",)), CLOSED),
    ),
    "owner": (("mail", Selector(("tcp",), user=(1000,)), None, OPEN),),
    "many_values": (("many", MANY, None, CLOSED),),
    "unless": (
        ("guests", Selector(user=(1000, 1001)), Selector(user=(1001,), remote=NETWORKS), OPEN),
        ("rest", Selector(("udp",)), Selector(remote_port=((53, 53), (67, 68))), CLOSED),
    ),
    "streams": (
        ("bulk", Selector(("tcp",), remote_port=((80, 80),)), Selector(user=(9,)), OPEN),
        ("wrap", Selector(("tcp",), user=(1000, 1001), remote=NETWORKS), Selector(user=(1001,)), OPEN, True),
        ("both", Selector(user=(1002,)), None, CLOSED, True),
        ("drain", None, None, OPEN, True),
    ),
    "copies": (
        ("watch", Selector(("tcp",), remote_port=((443, 443),)), None, COPIES),
        ("spread", Selector(user=(1000,)), None, SPREAD_COPIES),
        ("watch2", Selector(("udp",), remote_port=((53, 53),)), None, COPIES),
        ("closed", Selector(("udp",)), None, CLOSED),
    ),
    "kept": (
        ("old", Selector(("udp",), user=(1000, 1001), remote=NETWORKS), GUEST, OPEN, False, "kept"),
        ("gone", Selector(remote_port=((53, 53),)), None, CLOSED, False, "ended"),
        ("new", Selector(remote_port=((53, 53), (80, 80))), None, OPEN),
    ),
    "letting_go": (
        ("first", Selector(("udp", "tcp"), program=("curl",)), None, OPEN, False, "any", "chain"),
        ("all", Selector(("udp",), remote_port=((80, 80),)), None, OPEN),
    ),
    "kept_streams": (
        ("old", Selector(("tcp",), remote_port=((80, 80),)), GUEST, OPEN, True, "kept"),
        ("new", Selector(("tcp",), remote_port=((80, 80),)), None, OPEN),
    ),
    "kernel": (
        ("count", VOICE, None, OPEN, False, "any", "", KernelChain("", ("udp",))),
        ("drop", Selector(program=("dig",)), None, CLOSED, False, "any", "", DROPPING),
        ("gone", Selector(remote_port=((53, 53),)), None, CLOSED, False, "ended", "", DROPPING),
        ("queue", Selector(("udp",), remote_port=((80, 80),)), None, OPEN),
    ),
    "kernel_marks": (
        ("voice", VOICE, None, OPEN, False, "any", "", KernelChain("", ("udp",), MARKING)),
        ("mail", GUEST, None, OPEN, False, "any", "", KernelChain("", ("udp", "tcp"), MARKING[2:])),
    ),
}
PLANS["kernel_marks"] = (
    ("voice", VOICE, None, OPEN, False, "any", "", KernelChain("", ("udp",), MARKING)),
    (
        "mail",
        Selector(("tcp",), user=(1000,)),
        None,
        OPEN,
        False,
        "any",
        "",
        KernelChain("", ("tcp",), MARKING[1:]),
    ),
)
ENDING = RulePlan("test", MarkLayout(0x10FF, 0x2000), ending=True)


def plan(name: str) -> RulePlan:
    rows = enumerate(PLANS[name], 1)
    return RulePlan("test", MarkLayout(0x10FF, 0x2000), tuple(Diversion(r[0], i, *r[1:]) for i, r in rows))


def rendered(name: str) -> dict[str, str]:
    texts = {
        f"{name}.v4.rules": iptables.render_text(plan(name), 4),
        f"{name}.v6.rules": iptables.render_text(plan(name), 6),
    }
    return texts if plan(name).renumbering else {**texts, f"{name}.nft": nft.render_text(plan(name))}


@pytest.fixture(autouse=True)
def usual_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "mount_point", lambda: cgroups.USUAL_MOUNT)
    monkeypatch.setattr(pins, "directory", lambda owner: PINS / owner)


@pytest.mark.parametrize("name", PLANS)
def test_text_is_as_it_was_read(name: str) -> None:
    for file, text in rendered(name).items():
        assert text == (GOLDEN / file).read_text(), file


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("family", [4, 6])
def test_chains_are_known_short_and_reached(name: str, family: int) -> None:
    chains = iptables.render(plan(name), family)
    targets = {
        rule.split(flag)[1].split()[0]
        for rules in chains.values() for rule in rules for flag in ("-j ", "-g ") if flag in rule
    }  # fmt: skip
    ours = {target for target in targets if target.startswith("L45-")}
    assert ours | {"L45-test-in", "L45-test-out"} == set(chains) | ours
    assert ours <= set(chains)
    assert all(len(chain) <= 28 for chain in chains)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("family", [4, 6])
def test_raw_chains_are_known_short_and_reached(name: str, family: int) -> None:
    chains = iptables_raw.render(plan(name), family)
    assert bool(chains) == ("streams" in name)
    targets = {word for rules in chains.values() for rule in rules for word in rule.split() if "L45-" in word}
    assert targets | {"L45-test-raw"} == set(chains) | ({"L45-test-raw"} if not chains else set())
    assert all(len(chain) <= 28 for chain in chains)


def test_nothing_is_queued_without_bypass_but_customized_connections_and_closed_policies() -> None:
    for chains in iptables.render_tables(plan("streams"), 4).values():
        for name, rules in chains.items():
            for rule in (rule for rule in rules if "NFQUEUE" in rule):
                asked, error = "customized" in rule or "firm" in name, "error" in name
                expected = error or (not asked and "--queue-num 4500" in rule)
                assert ("--queue-bypass" in rule) == expected, (name, rule)


def test_connection_mark_never_names_a_renumbering_class() -> None:
    """conntrack may forget, and a mark that outlives the engine would lead to a queue without a listener."""
    for chains in iptables.render_tables(plan("streams"), 4).values():
        text = "".join(rule for name, rules in chains.items() if "stream" in name for rule in rules)
        assert "CONNMARK" not in text
        assert not any(
            "stream" in rule for name, rules in chains.items() if "known-tcp" in name for rule in rules
        )


@pytest.mark.parametrize("family", [4, 6])
def test_at_the_end_customized_connections_are_dropped_and_nothing_is_diverted(family: int) -> None:
    text = iptables.render_text(ENDING, family)
    assert text.count("-j DROP") == 2 and "customized-out -j DROP" in text and "customized-in -j DROP" in text
    assert "NFQUEUE" not in text


def test_nft_refuses_what_it_cannot_divert() -> None:
    with pytest.raises(RulesError, match=r'^policy wrap: the nft backend .*expected backend = "iptables"'):
        nft.render_text(plan("streams"))
    with pytest.raises(RulesError, match="policy wrap"):
        backend.render(plan("streams"), "nft")


def test_auto_is_a_backend_that_can_do_what_the_plan_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "nft_queue_problem", lambda: None)
    assert backend.choose_for(plan("empty")) == "nft"
    assert backend.choose_for(plan("streams")) == "iptables"
    assert "*raw\n" in backend.render(plan("streams"))


def test_number_of_rules_is_the_sum_of_values_not_their_product() -> None:
    many = tuple(range(1000, 1020))
    nets = tuple(ip_network(f"10.{i}.0.0/16") for i in range(20))
    select = Selector(("udp",), nets, nets, user=many, group=many)
    wanted = RulePlan("t", MarkLayout(0x10FF, 0x2000), (Diversion("p", 1, select, None, OPEN),))
    egress = [rule for name, rules in iptables.render(wanted, 4).items() if "-ou" in name for rule in rules]
    assert 80 <= len(egress) < 100


def test_exception_that_no_tag_can_decide_holds_for_servers() -> None:
    """Rather too few packets than those of a socket that was excepted."""
    users = [Diversion("p", 1, Selector(**{key: (i,)}), None, OPEN)
             for key in ("user", "group") for i in range(400)]  # fmt: skip
    last = Diversion("q", 2, Selector(("udp",)), Selector(group=(399,)), OPEN)
    wanted = RulePlan("t", MarkLayout(0x10FF, 0x2000), (*users, last))
    assert iptables.render(wanted, 4)["L45-t-iu800"][0] == "-m mark --mark 0x0/0x10ff -j RETURN"
    assert iptables.render(wanted, 4)["L45-t-ou800"][0] == "-m owner --gid-owner 399 -j RETURN"
    (rule,) = re.findall(
        r"chain in_800 {\n\t\tsocket mark & 0x10ff != { (.*) } return\n", nft.render_text(wanted)
    )
    assert len(rule.split(", ")) == 511


@pytest.mark.parametrize("owner", ["a", "layer45", "/run/layer45/control.sock", "x" * 99, "", "ü", "a-b"])
def test_names_of_owners(owner: str) -> None:
    assert len(owner_tag(owner)) <= 10
    assert owner_tag(owner).isascii() and "-" not in owner_tag(owner)
    assert chain_prefix(owner).startswith("L45-") and table_name(owner).startswith("layer45_")


def test_owners_that_look_alike_have_different_names() -> None:
    owners = [
        "run",
        "/run",
        "run/",
        "/run/layer45/a.sock",
        "/run/layer45/b.sock",
        "a-b",
        "a_b",
        "new-x",
        "new",
    ]
    assert len(set(map(owner_tag, owners))) == len(owners)


def test_unknown_backend() -> None:
    with pytest.raises(RulesError, match="expected one of auto, iptables, nft"):
        backend.render(plan("empty"), "pf")


def test_render_shows_both_families() -> None:
    text = backend.render(plan("addresses"), "iptables")
    assert "# iptables-restore --noflush\n*mangle" in text and "# ip6tables-restore" in text


def test_cgroup_mount_is_found_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    mounts = tmp_path / "mounts"
    mounts.write_text("proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup/my\\040own cgroup2 rw 0 0\n")
    assert cgroups.mount_point(mounts) == Path("/sys/fs/cgroup/my own")
    mounts.write_text("proc /proc proc rw 0 0\n")
    with pytest.raises(RulesError, match="no cgroup v2 tree"):
        cgroups.mount_point(mounts)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    cgroups.mount_point = lambda: cgroups.USUAL_MOUNT  # type: ignore[assignment,misc]
    pins.directory = lambda owner: PINS / owner  # type: ignore[assignment,misc]
    for plan_name in PLANS:
        for file_name, content in rendered(plan_name).items():
            (GOLDEN / file_name).write_text(content)
