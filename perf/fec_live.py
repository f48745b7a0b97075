"""What do repair datagrams cost on a live path, and what do they give: fec against UDPspeeder?

    python -m perf.fec_live [--rounds 5] [--seconds 3] [--udpspeeder PROGRAM]
                            [--only CASE…] [--ask QUESTION…] [--fec-chain TOML]

Needs root. Datagrams go from host a to host b directly, through a daemon at both ends with an empty chain,
with fec, and through UDPspeeder with the same code and deadline, if its program is given:

1. CPU of sender and receiver for a source megabit, at 100 Mbit/s in datagrams of 1200 bytes. "Ends included"
   adds the load's own two processes: who carries a datagram does more or less of their share of the stack.
2. Latency of each flow in fec_questions.FLOWS, from before send() to after recv().
3. IP bytes on the wire for each datagram of a slow flow, whose blocks the deadline closes.
4. On a path that loses 5 %: how many stay lost, and how late the others are. Those that the path lost and
   that came nevertheless are told apart where datagrams cross the wire as they are: not with UDPspeeder.

Rounds are interleaved; figures are compared only within one run. Where the path loses nothing (1 to 3), a
sample in which a datagram was lost or came twice does not count.
"""

import argparse
import contextlib
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from perf import ends, fec_questions, fec_targets, lab, record, udpspeeder
from perf.fec_questions import QUESTIONS, Sample
from perf.serving import EMPTY
from perf.udp_load import Way
from tests.netns.topology import Hosts, two_hosts

SOURCE_SYMBOLS, REPAIR_SYMBOLS, DEADLINE_MS = 10, 3, 8
FEC_CHAIN = f'[{{ module = "fec", source_symbols = {SOURCE_SYMBOLS}, repair_symbols = {REPAIR_SYMBOLS} }}]'
SPEEDER_CODE = [f"-f{SOURCE_SYMBOLS}:{REPAIR_SYMBOLS}", "--timeout", str(DEADLINE_MS), "--log-level", "2"]
PLAIN = ["--disable-obscure", "--disable-checksum"]  # nothing but the code, as ours

Case = Callable[[Hosts], contextlib.AbstractContextManager[Way]]
Samples = dict[str, list[Sample]]


@contextlib.contextmanager
def way(engine: ends.Engine, hosts: Hosts) -> Iterator[Way]:
    """From host to host, past what stands at both ends."""
    with engine(hosts, ends.Traffic(("udp",), (lab.PORT,))) as both:
        yield Way(hosts.b.ipv4, lab.PORT, [end.pid for end in both])


def cases(fec_chain: str, speeder: str | None) -> dict[str, Case]:
    """All that are compared, by the name the results give them."""
    found: dict[str, Case] = {
        fec_targets.DIRECT: partial(way, ends.nobody),
        fec_targets.EMPTY: partial(way, ends.ours(EMPTY)),
        fec_targets.FEC: partial(way, ends.ours(fec_chain)),
    }
    if speeder is None:
        return found
    for mode, name in fec_targets.SPEEDER.items():
        options = [*SPEEDER_CODE, "--mode", str(mode)]
        found[name] = partial(udpspeeder.tunnel, speeder, options)
        found[f"{name}, plain"] = partial(udpspeeder.tunnel, speeder, [*options, *PLAIN])
    return found


def sample(hosts: Hosts, case: Case, asked: list[str], seconds: float) -> tuple[Sample, list[str]]:
    """One round of one case: its figures, and what went wrong."""
    try:
        with case(hosts) as way:
            return answers(hosts, way, asked, seconds)
    except lab.BenchmarkError as error:  # it did not start
        return {}, [str(error)]


def answers(hosts: Hosts, way: Way, asked: list[str], seconds: float) -> tuple[Sample, list[str]]:
    """One question after another; what spoils one spoils no other."""
    found: Sample = {}
    spoiled: list[str] = []
    for name in asked:
        try:
            found |= QUESTIONS[name](hosts, way, seconds)
        except lab.BenchmarkError as error:
            spoiled.append(f"{name}: {error}")
    return found, spoiled


def measure(
    chosen: dict[str, Case], asked: list[str], rounds: int, seconds: float
) -> tuple[Samples, list[str]]:
    """Samples by case, and what went wrong; the order turns by one each round."""
    samples: Samples = {name: [] for name in chosen}
    spoiled: list[str] = []
    with two_hosts() as hosts:
        silence_ipv6(hosts)
        for turn in range(rounds):
            order = lab.turned(chosen, turn)
            for name in order:
                found, wrong = sample(hosts, chosen[name], asked, seconds)
                samples[name].append(found)
                for each in wrong:
                    spoiled.append(f"round {turn}, {name}: {each}")
                    print(f"perf: not counted: {spoiled[-1]}", flush=True)
    return samples, spoiled


def silence_ipv6(hosts: Hosts) -> None:
    """It sends by itself, and bytes on the wire are counted."""
    for host in hosts:
        host.run(["sysctl", "-qw", f"net.ipv6.conf.{host.device}.disable_ipv6=1"])


def by_figure(samples: Samples) -> dict[str, dict[str, list[float]]]:
    """Series by figure and case, of what was counted."""
    figures = dict.fromkeys(figure for runs in samples.values() for run in runs for figure in run)
    series = {
        figure: {name: [run[figure] for run in runs if figure in run] for name, runs in samples.items()}
        for figure in figures
    }
    return {figure: {name: runs for name, runs in rows.items() if runs} for figure, rows in series.items()}


def medians(series: Mapping[str, Mapping[str, list[float]]], case: str) -> dict[str, float]:
    """One case's."""
    return {figure: statistics.median(rows[case]) for figure, rows in series.items() if case in rows}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="perf.fec_live", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each flow")
    parser.add_argument("--udpspeeder", metavar="PROGRAM", help="its path, or its name on PATH")
    parser.add_argument("--fec-chain", default=FEC_CHAIN, metavar="TOML", help="in place of fec's chain")
    parser.add_argument("--only", nargs="*", default=[], help="cases to compare; default all")
    parser.add_argument("--ask", nargs="*", default=list(QUESTIONS), choices=QUESTIONS, help="default all")
    options = parser.parse_args()
    if options.udpspeeder and not shutil.which(options.udpspeeder):
        parser.error(f"no program {options.udpspeeder}")
    return options


def setting(fec_chain: str, speeder: str | None) -> dict[str, Any]:
    """What was compared."""
    found = {"fec_chain": fec_chain, "loss": fec_questions.LOSS}
    if speeder:
        found |= {"udpspeeder_options": SPEEDER_CODE, "udpspeeder_commit": udpspeeder.version(speeder)}
    return found


def main() -> None:
    """Measure, print and record."""
    options = arguments()
    speeder = options.udpspeeder and shutil.which(options.udpspeeder)
    known = cases(options.fec_chain, speeder)
    chosen = {name: case for name, case in known.items() if not options.only or name in options.only}
    samples, spoiled = measure(chosen, options.ask, options.rounds, options.seconds)
    series = by_figure(samples)
    for figure, rows in series.items():
        print(f"-- {figure}")
        record.table(rows, "", fec_targets.EMPTY)
    targets = fec_targets.verdicts({name: medians(series, name) for name in chosen}, DEADLINE_MS)
    print(*targets, sep="\n")
    record.write(
        "fec_live",
        "CPU, latency, bytes and recovery of a code of (10, 3) on live datagrams",
        {
            **setting(options.fec_chain, speeder),
            "targets": [vars(each) | {"met": each.met} for each in targets],
            "figures": {
                figure: {name: record.summary(runs) for name, runs in rows.items()}
                for figure, rows in series.items()
            },
            "samples": samples,
            "not_counted": spoiled,
        },
    )
    if fec_questions.CPU in series:
        title = "CPU of sender and receiver, 100 Mbit/s in 1200-byte datagrams"
        record.plot("fec_live", title, fec_questions.CPU, series[fec_questions.CPU])


if __name__ == "__main__":
    main()
