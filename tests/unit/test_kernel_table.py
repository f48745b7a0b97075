# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""[kernel] of module.toml: what is read, one line for what is wrong, and the steps that come of it."""

from pathlib import Path

import pytest

from layer45.errors import ConfigError
from layer45.kernel_table import KernelPart
from layer45.loader import load
from layer45.manifest import load_manifest
from layer45.rules.kernel_chain import KernelChain, Step

HEAD = """\
[module]
name = "pick"
version = "1.0.0"
abi = 1
kind = "segment"
language = "python"
summary = "One line"
inverse = "none"
transports = ["udp", "tcp"]
directions = ["egress", "ingress"]
reads = "headers"
"""
PARTS = """\
[param.every]
type = "integer"
default = 0
help = "x"
[param.sizes]
type = "range"
default = "0-65535"
help = "x"
[param.head]
type = "bytes"
default = ""
max_bytes = 32
help = "x"
[param.long]
type = "bytes"
default = ""
help = "x"
[param.not]
type = "boolean"
default = false
help = "x"
[counter.other]
help = "x"
[counter.picked]
help = "x"
"""
WHOLE = """\
[kernel]
when = { every = 0 }
length = "sizes"
prefix = "head"
invert = "not"
counts = ["picked"]
verdict = "drop"
"""
MARK = """\
[kernel]
counts = ["picked"]
verdict = "mark"
dscp = "point"
counts_changed = ["other"]
[param.point]
type = "integer"
required = true
minimum = 0
maximum = 63
help = "x"
"""
BOTH = ("egress", "ingress")


def write(directory: Path, kernel: str, head: str = HEAD) -> Path:
    folder = directory / "modules" / "pick"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pick.py").write_text("class Module:\n    def egress(self, packet):\n        pass\n")
    (folder / "module.toml").write_text(head + kernel + PARTS)
    return folder / "module.toml"


def test_all_of_it_is_read(tmp_path: Path) -> None:
    assert load_manifest(write(tmp_path, WHOLE)).kernel == KernelPart(
        "drop", ("picked",), {"every": 0}, "sizes", "head", "not"
    )
    assert load_manifest(write(tmp_path, '[kernel]\nverdict = "pass"\n')).kernel == KernelPart("pass")
    assert load_manifest(write(tmp_path, "")).kernel is None


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('verdict = "drop"\n', "", '12: kernel.verdict: missing; expected one of "drop", "mark", "pass"'),
        ('"drop"', '"dorp"', '18: kernel.verdict: expected one of "drop", "mark", "pass", got "dorp", did you mean "drop"?'),
        ('["picked"]', '["piked"]', '17: kernel.counts[0]: no counter "piked", did you mean "picked"?'),
        ('"sizes"', '"size"', '14: kernel.length: no parameter "size", did you mean "sizes"?'),
        ('"sizes"', '"every"', "14: kernel.length: expected a parameter of type range; every is of integer"),
        ('prefix = "head"', 'prefix = "long"', "15: kernel.prefix: parameter long needs max_bytes <= 32 to stand for a prefix"),
        ("{ every = 0 }", "{ ever = 0 }", '13: kernel.when.ever: no parameter "ever", did you mean "every"?'),
        ("{ every = 0 }", '{ every = "x" }', '13: kernel.when.every: expected integer, got "x"'),
        ("length", "lengths", '14: kernel.lengths: unknown key, did you mean "length"?'),
    ],
)  # fmt: skip
def test_what_is_wrong(old: str, new: str, problem: str, tmp_path: Path) -> None:
    file = write(tmp_path, WHOLE.replace(old, new, 1))
    with pytest.raises(ConfigError) as raised:
        load_manifest(file)
    assert raised.value.problems == [f"{file}:{problem}"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('dscp = "point"\n', "", '12: kernel.dscp: missing; verdict "mark" takes a parameter with the code point'),
        ('"point"', '"sizes"', "15: kernel.dscp: expected a parameter of type integer; sizes is of range"),
        ("maximum = 63", "maximum = 64", "15: kernel.dscp: parameter point needs minimum = 0 and maximum = 63 to stand for a code point"),
        ('["other"]', '["othr"]', '16: kernel.counts_changed[0]: no counter "othr", did you mean "other"?'),
        ('"mark"\ndscp = "point"', '"drop"', '15: kernel.counts_changed: goes with verdict "mark" only, not with "drop"'),
        ('"mark"', '"pass"', '15: kernel.dscp: goes with verdict "mark" only, not with "pass"'),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_mark(old: str, new: str, problem: str, tmp_path: Path) -> None:
    file = write(tmp_path, MARK.replace(old, new, 1))
    with pytest.raises(ConfigError) as raised:
        load_manifest(file)
    assert f"{file}:{problem}" in raised.value.problems


def test_what_the_kernel_cannot_do_of_a_module(tmp_path: Path) -> None:
    head = HEAD + 'emits = ["egress"]\ngrowth_bytes = { front = 0, back = 3 }\n'
    file = write(tmp_path, WHOLE, head)
    with pytest.raises(ConfigError) as raised:
        load_manifest(file)
    assert raised.value.problems == [
        f"{file}:14: kernel: the kernel does nothing of what module.{key} says; expected none of either"
        for key in ("emits", "growth_bytes")
    ]


def chain(directory: Path, entries: str, match: str = 'protocol = "udp"') -> KernelChain | None:
    (directory / "layer45.toml").write_text('module_dirs = ["modules"]\n')
    (directory / "policies").mkdir(exist_ok=True)
    text = f"[policy.p]\nmatch = {{ {match} }}\nchain = [ {entries} ]\n"
    (directory / "policies" / "p.toml").write_text(text)
    (plan,) = load(directory).chains
    assert plan.path == ("kernel" if plan.kernel else "queue")
    return plan.kernel


def test_steps_of_a_chain(tmp_path: Path) -> None:
    """A module of the site's, as one of ours; counters are those of all instances, in their order."""
    write(tmp_path, WHOLE)
    entries = '{ module = "pick", sizes = "3-9", not = true }, { module = "pick", head = "x", direction = "egress" }'
    made = chain(tmp_path, entries)
    assert made and made.counters == 4 and not made.super_packets
    assert made.steps == (
        Step(BOTH, (3, 9), b"", True, True, (1,)),
        Step(("egress",), (0, 65535), b"x", False, True, (3,)),
    )
    assert chain(tmp_path, '{ module = "pick", every = 2 }') is None
    write(tmp_path, MARK)
    made = chain(
        tmp_path, '{ module = "pick", point = 7 }, { module = "drop" }, { module = "pick", point = 0 }'
    )
    drops = Step(BOTH, drops=True, counters=(2, 3))
    assert (
        made
        and made.dscps == (0, 7)
        and made.steps
        == (
            Step(BOTH, counters=(1,), dscp=7, changed_counters=(0,)),
            drops,
            Step(BOTH, counters=(8,), dscp=0, changed_counters=(7,)),
        )
    )
    write(tmp_path, '[kernel]\nverdict = "pass"\n', HEAD + "gso = true\n")
    made = chain(tmp_path, '{ module = "pick", head = "x" }', 'protocol = "tcp"')
    assert made and made.super_packets and made.steps == (Step(BOTH),)


def test_another_path_is_another_chain(tmp_path: Path) -> None:
    """What it has counted is in another place; so it begins anew."""
    write(tmp_path, "")
    (tmp_path / "layer45.toml").write_text("")
    (tmp_path / "policies").mkdir()
    texts = []
    for path in ("auto", "queue"):
        (tmp_path / "policies" / "p.toml").write_text(f'[policy.p]\nmatch = {{}}\npath = "{path}"\n')
        texts.append(load(tmp_path).chains[0].text)
    assert texts[0] != texts[1]
