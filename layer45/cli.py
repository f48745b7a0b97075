"""The command line: `layer45 COMMAND`. Exit status 0: done, 1: failed, 2: used wrongly, 130: interrupted.

Only argument parsing is imported here; each command imports what it needs when it runs.
"""

import os
import sys
from typing import Annotated, Any

import typer

from layer45 import cli_fec, cli_host, cli_life_cycle, cli_live, cli_modules, cli_sockets
from layer45.errors import ConfigError, Layer45Error
from layer45.output import print_error

INTERRUPTED = 130

app = typer.Typer(
    name="layer45",
    help="Customize what this host's protocols do on the wire, per socket, without touching applications.",
    epilog="A first look: layer45 doctor; layer45 check DIR; layer45 run --config DIR.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"layer45 {version('layer45')}")
        except PackageNotFoundError:
            print("layer45 (a checkout that is not installed)")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def layer45(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Without a command: the help, as an error."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


for function in (
    *cli_host.COMMANDS,
    *cli_live.COMMANDS,
    *cli_sockets.COMMANDS,
    *cli_life_cycle.COMMANDS,
):
    app.command(function.__name__.removesuffix("_"))(function)
app.add_typer(cli_modules.app, name="modules")
app.add_typer(cli_fec.app, name="fec")


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line (default: the process's) and returns the exit status. No exception leaves it."""
    try:
        status = app(args=arguments, prog_name="layer45", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except BrokenPipeError:
        return _reader_left()
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        return _explain(error)


def _reader_left() -> int:
    """Whoever read our output is gone: the interpreter's last flush must not complain about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _explain(error: Exception) -> int:
    """One line for each problem; the exit status."""
    if hasattr(error, "format_message"):
        print_error(_usage(error))
        return 2
    for line in _lines(error):
        print_error(line)
    if os.environ.get("LAYER45_TRACEBACK"):
        raise error
    return 1


def _lines(error: Exception) -> list[str]:
    if isinstance(error, ConfigError):
        return error.problems
    if isinstance(error, Layer45Error):
        return [str(error)]
    if isinstance(error, OSError) and error.strerror:
        return [f"{error.filename}: {error.strerror}" if error.filename else error.strerror]
    return [f"internal error: {type(error).__name__}: {error}; LAYER45_TRACEBACK=1 shows where"]


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    return f"{message}; see {context.command_path} --help" if context else message
