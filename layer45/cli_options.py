"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CONFIG = Path("/etc/layer45")

Config = Annotated[
    Path, typer.Option("--config", metavar="DIR", help="Directory with layer45.toml and policies/*.toml.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
