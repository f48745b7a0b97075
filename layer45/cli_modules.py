"""`layer45 modules`: what there is, what each one does, and a new one to start from."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from layer45.cli_options import DEFAULT_CONFIG, Config, Json

app = typer.Typer(
    help="Modules: list, show, verify, new, build.",
    no_args_is_help=False,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a module.")]


class Language(StrEnum):
    """What a module is written in."""

    cython = "cython"
    python = "python"


class Kind(StrEnum):
    """What a module works on."""

    datagram = "datagram"
    stream = "stream"


@app.command("list")
def list_(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Every module: the shipped ones, then those of module_dirs."""
    from layer45.module_views import show_list, summary
    from layer45.output import print_error, print_json

    index = _index(config)
    for problems in index.broken.values():
        for line in problems.sorted_lines():
            print_error(f"warning: {line}")
    documents = [summary(index.modules[name]) for name in sorted(index.modules)]
    (print_json if as_json else show_list)(documents)


@app.command()
def show(name: Name, config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """One module: what it declares, parameters, counters, ratios."""
    from layer45.module_views import document, show_module
    from layer45.output import print_json

    (print_json if as_json else show_module)(document(_module(config, name)))


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Default: every module.")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Load the code of modules; compare it with what they declare."""
    from layer45.module_views import verify_module
    from layer45.output import print_json, print_table

    index = _index(config)
    broken = {name: problems.sorted_lines() for name, problems in index.broken.items()}
    wanted = names or sorted({*index.modules, *broken})
    found = {name: broken.get(name) or verify_module(_module(config, name)) for name in wanted}
    results = [{"module": name, "ok": not problems, "problems": problems} for name, problems in found.items()]
    if as_json:
        print_json(results)
    else:
        print_table(("MODULE", "RESULT"), [(name, "; ".join(found[name]) or "ok") for name in found])
    raise typer.Exit(1 if any(found.values()) else 0)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and _.")],
    language: Annotated[
        Language, typer.Option(help="cython: compiled, fast. python: slower, for a pilot.")
    ] = Language.cython,
    kind: Annotated[
        Kind, typer.Option(help="datagram: whole UDP datagrams. stream: TCP's bytes; compiled only.")
    ] = Kind.datagram,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory", metavar="DIR", help="Where its folder goes. Default: the first of module_dirs."
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Write a module that works, to start from.

    It has a manifest, code, a reference, a README and a test.
    """
    from layer45.skeleton import write_module

    parent = directory or Path(_settings(config).module_dirs[0])
    for path in write_module(name, language.value, parent, kind.value):
        print(path)
    if str(parent.absolute()) not in _settings(config).module_dirs:
        print(f'next: module_dirs = ["{parent.absolute()}"] in {config / "layer45.toml"}')
    if language is Language.cython:
        print(f"next: layer45 modules build {parent / name}")


@app.command()
def build(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A site module, or its folder.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Compile a site module in its folder. A daemon uses the new code after its next start."""
    from layer45.errors import Layer45Error
    from layer45.module_build import build_module

    folder = Path(name)
    if not folder.is_dir():
        module = _module(config, name)
        if module.shipped:
            raise Layer45Error(f"{name}: is shipped with Layer 4.5 and built with it")
        folder = module.folder
    print(build_module(folder.absolute()))


def _settings(config: Path) -> Any:
    """Without a configuration directory, the defaults."""
    from layer45.config import Settings, load_settings

    return load_settings(config) if config.is_dir() else Settings()


def _index(config: Path) -> Any:
    from layer45.modulefolder import find_modules

    return find_modules(_settings(config))


def _module(config: Path, name: str) -> Any:
    from layer45.errors import ConfigError, Layer45Error
    from layer45.suggest import did_you_mean

    index = _index(config)
    if name in index.broken:
        raise ConfigError(index.broken[name].sorted_lines())
    if name not in index.modules:
        raise Layer45Error(f'no module "{name}"{did_you_mean(name, index.modules)}; see layer45 modules list')
    return index.modules[name]
