"""`layer45 modules`: what there is, what each one does, and a new one to start from."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from layer45.cli_options import DEFAULT_CONFIG, Config, Json

app = typer.Typer(
    help="Modules: list, show, verify, new, build, sign.",
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

    (print_json if as_json else show_module)(document(_module(_index(config), name)))


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Default: every module.")] = None,
    config: Config = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Who vouches for modules; does their code keep their word?

    Looks at owners, hashes and signatures; loads the code and compares it with what is declared.
    """
    from layer45.module_views import show_results, verify_module
    from layer45.output import print_json

    index = _index(config)
    results = [
        verify_module(name, _module(index, name, refused=True), index.broken.get(name))
        for name in names or sorted({*index.modules, *index.broken})
    ]
    (print_json if as_json else show_results)(results)
    raise typer.Exit(0 if all(each["ok"] for each in results) else 1)


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
    """Compile a site module in its folder. A daemon takes the new code up at its next reload."""
    from layer45.module_build import build_module
    from layer45.module_content import SIGNATURE

    folder = _folder(config, name)
    print(build_module(folder))
    if (folder / SIGNATURE).exists():
        print(f"next: layer45 modules sign {name} --key FILE")


@app.command()
def sign(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A site module, or its folder.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Ed25519 private key, PEM; see keygen.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Sign what is in a module's folder.

    Writes the hash of its content into module.toml, and module.sig.
    """
    from layer45.module_sign import sign_module
    from layer45.module_signature import read_private

    print(sign_module(_folder(config, name), read_private(key)))


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes; a new file.")],
) -> None:
    """Make a key to sign modules with.

    Prints its public part, for trust.toml.
    """
    from base64 import b64encode

    from layer45.module_signature import make_key

    public = make_key(file)
    print(f'[key.{file.stem}]\ned25519 = "{b64encode(public).decode()}"')


def _settings(config: Path) -> Any:
    """Without a configuration directory, the defaults."""
    from layer45.config import Settings, load_settings

    return load_settings(config) if config.is_dir() else Settings()


def _index(config: Path) -> Any:
    from layer45.modulefolder import find_modules
    from layer45.trust import Trust, load_trust

    return find_modules(_settings(config), load_trust(config) if config.is_dir() else Trust())


def _module(index: Any, name: str, refused: bool = False) -> Any:
    """None, if it may be refused and is."""
    from layer45.errors import ConfigError, Layer45Error
    from layer45.suggest import did_you_mean

    if name in index.broken:
        if refused:
            return None
        raise ConfigError(index.broken[name].sorted_lines())
    if name not in index.modules:
        hint = did_you_mean(name, (*index.modules, *index.broken))
        raise Layer45Error(f'no module "{name}"{hint}; see layer45 modules list')
    return index.modules[name]


def _folder(config: Path, name: str) -> Path:
    """Of a module that is not shipped, whether it may be used or not; name: its own, or the folder's."""
    from layer45.errors import Layer45Error

    if Path(name).is_dir():
        return Path(name).absolute()
    for directory in _settings(config).module_dirs:
        if (Path(directory) / name / "module.toml").is_file():
            return Path(directory) / name
    if _module(_index(config), name).shipped:
        raise Layer45Error(f"{name}: is shipped with Layer 4.5, and a part of it")
    raise Layer45Error(f"{name}: stands in no directory of module_dirs; expected its folder's path")
