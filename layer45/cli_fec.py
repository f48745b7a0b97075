"""`layer45 fec`: what to ask of forward error correction."""

import re
from math import inf
from typing import Annotated

import typer

from layer45.cli_options import Json

app = typer.Typer(
    help="Forward error correction: plan.",
    no_args_is_help=False,
    rich_markup_mode=None,
)
NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(\S*)")


def _quantity(text: str, units: dict[str, float]) -> float:
    """A number with one of the units. BadParameter: neither."""
    match = NUMBER.fullmatch(text.strip())
    if not match or match[2] not in units:
        raise typer.BadParameter(f'"{text}": expected a number and {" or ".join(filter(None, units))}')
    return float(match[1]) * units[match[2]]


def _part(text: str) -> float:
    part = _quantity(text, {"%": 0.01, "": 1.0})
    if not 0 < part < 1:
        raise typer.BadParameter(f'"{text}": expected more than 0 and less than 100%')
    return part


def _overhead(text: str) -> float:
    return _quantity(text, {"%": 0.01, "": 1.0})


def _milliseconds(text: str) -> float:
    milliseconds = _quantity(text, {"ms": 1.0, "s": 1000.0})
    if milliseconds < 1:
        raise typer.BadParameter(f'"{text}": expected at least 1ms')
    return milliseconds


def _rate(text: str) -> tuple[float, bool]:
    """Packets a second; or bits, and True."""
    units = {"pps": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}
    rate = _quantity(text, units)
    if rate <= 0:
        raise typer.BadParameter(f'"{text}": expected more than 0')
    return rate, not text.strip().endswith("pps")


@app.callback()
def fec() -> None:
    """Forward error correction: plan."""


@app.command()
def plan(
    loss: Annotated[float, typer.Option(parser=_part, metavar="PERCENT", help="What the path loses: 5%.")],
    target: Annotated[float, typer.Option(parser=_part, metavar="PERCENT", help="What may stay lost: 0.1%.")],
    rate: Annotated[
        tuple, typer.Option(parser=_rate, metavar="RATE", help="Of the flow: 300pps, or 3Mbit of payload.")
    ],
    latency: Annotated[
        float,
        typer.Option(parser=_milliseconds, metavar="TIME", help="How late a recovered packet may be: 50ms."),
    ],
    packet: Annotated[
        int, typer.Option(metavar="BYTES", min=1, max=65507, help="A packet's payload.")
    ] = 1200,
    burst: Annotated[
        float | None,
        typer.Option(
            metavar="MEAN_LENGTH",
            min=1,
            help="Of losses in a row, in packets. Default: they are independent.",
        ),
    ] = None,
    max_overhead: Annotated[
        float | None,
        typer.Option(
            parser=_overhead,
            metavar="PERCENT",
            help="Bytes added to bytes of payload. Default: a repair symbol for each source symbol.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Propose a code for a path: k, m, interleave and deadline.

    The cheapest one that reaches the target in time, by the binomial model or, with --burst, by that of two
    states (Gilbert-Elliott). Latency is added only to packets that were lost. Changes nothing.
    """
    from layer45.fec_plan import Wish
    from layer45.fec_plan import plan as plan_for
    from layer45.fec_view import show_plan
    from layer45.output import print_json

    amount, in_bits = rate
    rate_pps = amount / (8 * packet) if in_bits else amount
    most = inf if max_overhead is None else max_overhead
    wish = Wish(loss, target, rate_pps, packet, latency, burst or 0.0, most)
    found = plan_for(wish)
    if as_json:
        print_json({"wish": wish, "plan": found.as_dict()})
    else:
        show_plan(wish, found)
