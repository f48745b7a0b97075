"""What a daemon looks at before it starts, and before it reloads."""

import os
from dataclasses import fields
from pathlib import Path

from layer45 import bound_queues, processors
from layer45.config import FILE_NAME, Settings
from layer45.errors import Layer45Error
from layer45.loader import Plan


def check_privileges() -> None:
    """Raises Layer45Error."""
    if os.geteuid() != 0:
        raise Layer45Error("run needs root, for it opens queues and changes rules; run: sudo layer45 run")


def check_settings(directory: Path, before: Settings, after: Settings) -> None:
    """What is one per daemon cannot change while it runs. Raises Layer45Error."""
    changed = [f.name for f in fields(Settings) if getattr(before, f.name) != getattr(after, f.name)]
    fixed = [name for name in changed if name not in ("module_dirs", "load")]
    if fixed:
        was = getattr(before, fixed[0])
        raise Layer45Error(
            f"{directory / FILE_NAME}: {fixed[0]}: it was {was!r} at the start; restart to change it"
        )


def check_processors(directory: Path, settings: Settings) -> None:
    """Raises Layer45Error if workers cannot be where they should be."""
    try:
        processors.check_usable(processors.parse(settings.worker_cpus))
    except Layer45Error as error:
        raise Layer45Error(f"{directory / FILE_NAME}: worker_cpus: {error}") from error


def taken_numbers() -> tuple[int, ...]:
    """Of queues and of NFLOG groups that somebody reads."""
    return tuple({**bound_queues.queues(), **bound_queues.groups()})


def queue_is_read(number: int) -> bool:
    """Whether a program has the queue."""
    return number in bound_queues.queues()


def check_queues_free(plan: Plan) -> None:
    """Raises Layer45Error if a program reads one of our queues or groups already."""
    queues, groups = bound_queues.queues(), bound_queues.groups()
    for each in plan.queues:
        bound = groups if each.copies else queues
        for number in each.numbers:
            if number in bound:
                port = bound[number].port
                raise Layer45Error(
                    f"{each.kind_name} {number} is in use by another program (netlink port {port}); "
                    "set another first_queue in layer45.toml"
                )
