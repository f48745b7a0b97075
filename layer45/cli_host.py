"""Commands that need no daemon: doctor, check, rules, replay."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from layer45.cli_options import DEFAULT_CONFIG, Config, Json


class Backend(StrEnum):
    """What makes the rules."""

    auto = "auto"
    iptables = "iptables"
    nft = "nft"


class Direction(StrEnum):
    """A packet's way, as this host sees it."""

    egress = "egress"
    ingress = "ingress"


def doctor(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """What this host can do, what is missing, and what mends it.

    Every check comes with its result and, where it is not ok, the exact command that mends it. Changes
    nothing: what has to be tried is tried in a network namespace of its own. Exit status 1 if something that
    the daemon needs is missing.
    """
    from layer45.config import Settings, load_settings
    from layer45.doctor import examine, fit
    from layer45.output import print_json
    from layer45.views import show_findings

    settings = load_settings(config) if config.is_dir() else Settings()
    findings = examine(settings.mark_mask, settings.first_queue)
    if as_json:
        print_json({"fit": fit(findings), "checks": [finding.as_dict() for finding in findings]})
    else:
        show_findings(findings)
    raise typer.Exit(0 if fit(findings) else 1)


def check(
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="As --config.", show_default=False)
    ] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Validate policies and modules; no kernel, no root.

    It reads layer45.toml, every policy and every module they use, and changes nothing. Every problem is one
    line on standard error: FILE:LINE: key: what is wrong; what was expected.
    """
    from layer45.check import check as report_on
    from layer45.output import print_error, print_json
    from layer45.views import show_report

    report = report_on(directory or config)
    if as_json:
        print_json(report)
    else:
        for problem in report["problems"]:
            print_error(problem)
        for warning in report["warnings"]:
            print_error(f"warning: {warning}")
        show_report(report)
    raise typer.Exit(0 if report["ok"] else 1)


def rules(
    config: Config = DEFAULT_CONFIG,
    backend: Annotated[
        Backend | None, typer.Option(help="Default: as layer45.toml says.", show_default=False)
    ] = None,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Remove what a daemon that was killed has left behind. Needs root."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the rules the policies need; no root.

    Changes nothing, unless told to --remove the rules that a killed daemon has left behind.
    """
    from layer45.rule_switch import remove_rules, render_rules

    chosen = backend.value if backend else ""
    if remove:
        remove_rules(config)
        return
    rendered = render_rules(config, chosen)
    if as_json:
        from layer45.output import print_json

        print_json({"backend": rendered.backend, "owner": rendered.owner, "rules": rendered.text})
    else:
        print(rendered.text.rstrip())


def replay(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="pcap or pcapng to read; - is standard input.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="pcap to write; - is standard output.")],
    policy: Annotated[str, typer.Option(metavar="NAME", help="Whose chain the packets go through.")],
    direction: Annotated[
        Direction | None,
        typer.Option(help="As if this host had sent, or received, them.", show_default=False),
    ] = None,
    through: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'MODULE KEY=VALUE …'",
            help="Out by the chain, through this network, and in by the chain; may be given several times.",
            show_default=False,
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    seed: Annotated[int, typer.Option(help="Of random choices: the same seed, the same output.")] = 1,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Run the modules' Python references in place of compiled code."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Send a capture through a policy's chain; no root, no kernel.

    Packets the policy does not match are copied as they are, and counted. With OUT = -, the summary goes to
    standard error. With --through 'impair loss_percent=5', they go from host to host over a bad network.
    """
    from layer45.faults import tell_faults
    from layer45.output import print_error
    from layer45.replay import replay as replay_capture
    from layer45.replay import replay_through
    from layer45.replay_view import progress_line, show_passes, show_summary

    if bool(direction) == bool(through):
        raise typer.BadParameter(
            "expected either --direction egress|ingress or --through 'MODULE KEY=VALUE …'"
        )
    tell_faults(print_error)
    progress, to_stderr = progress_line(), str(target) == "-"
    if direction:
        summary = replay_capture(
            config, policy, direction.value, source, target,
            seed=seed, progress=progress, reference=reference,
        )  # fmt: skip
        show_summary(summary.as_dict(), as_json, to_stderr)
        errors = [summary.error]
    else:
        passes = replay_through(
            config, policy, through or (), source, target,
            seed=seed, progress=progress, reference=reference,
        )  # fmt: skip
        show_passes([each.as_dict() for each in passes], as_json, to_stderr)
        errors = [each.error for each in passes]
    for error in filter(None, errors):
        print_error(error)
        raise typer.Exit(1)


def bench(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Default: all of them.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds: a look, not a result.")] = False,
    only_list: Annotated[bool, typer.Option("--list", help="Only say which there are.")] = False,
    as_json: Json = False,
) -> None:
    """Run the benchmarks of a checkout.

    They write their figures and plots to perf/results, and with --json print the figures. Needs root.
    """
    import subprocess
    import sys

    from layer45.errors import Layer45Error

    checkout = Path(__file__).parents[1]
    if not (checkout / "perf" / "__main__.py").is_file():
        raise Layer45Error(
            f"{checkout}: no perf/ here; the benchmarks come with a checkout, not with the package"
        )
    chosen = {"--quick": quick, "--list": only_list, "--json": as_json}
    options = [option for option, wanted in chosen.items() if wanted]
    done = subprocess.run([sys.executable, "-m", "perf", *(names or []), *options], cwd=checkout, check=False)
    raise typer.Exit(done.returncode)


COMMANDS = (doctor, check, rules, replay, bench)
