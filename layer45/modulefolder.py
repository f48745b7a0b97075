"""Modules on disk: finds their folders, reads each once, and refuses those that may not be used.

Where modules are looked for, the first of a name counts: those shipped with this program, which are a part of
it (who can write them can write the daemon); DISTRIBUTION_MODULE_DIR, for packages; settings.module_dirs, for
the site. In the last two every level of the path must belong to root, or to us, and be writable for nobody
else, and there are no links (trusted_files.py); what was read there is what is judged, and what runs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from layer45.config import DEFAULT_MODULE_DIR, DISTRIBUTION_MODULE_DIR, Settings
from layer45.manifest import FILE_NAME, parse_manifest, read_manifest
from layer45.module import Module
from layer45.module_content import read_files
from layer45.module_standing import Found, judge, refused
from layer45.problems import Place, Problems
from layer45.trust import Trust
from layer45.trusted_files import Directory, Distrusted, open_directory

__all__ = ["SHIPPED", "Module", "ModuleIndex", "find_modules"]

SHIPPED = Path(__file__).with_name("modules")
NOTHING_SIGNED = Trust()


@dataclass(frozen=True)
class ModuleIndex:
    """All modules found, by name.

    broken: the problems of those that are refused, or whose manifest has any. hidden: a line for each that an
    earlier one hides, and for each name in trust.toml that is none.
    """

    modules: Mapping[str, Module]
    broken: Mapping[str, Problems]
    hidden: tuple[str, ...] = ()


def find_modules(
    settings: Settings,
    trust: Trust = NOTHING_SIGNED,
    place: Place | None = None,
    problems: Problems | None = None,
) -> ModuleIndex:
    """Every module; the directories may be missing.

    place: of layer45.toml; with problems, directories that are named there and missing are told of.
    """
    search = _Search(trust)
    search.take_shipped()
    search.take_directory(Path(DISTRIBUTION_MODULE_DIR), site=False)
    for index, name in enumerate(settings.module_dirs):
        fault = search.take_directory(Path(name), site=True)
        if fault and name != DEFAULT_MODULE_DIR and place and problems is not None:
            problems.add(place.child("module_dirs", index), f"{name} cannot be read: {fault}")
    remarks = trust.remarks({*search.modules, *search.broken})
    return ModuleIndex(search.modules, search.broken, (*search.hidden, *remarks))


class _Search:
    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.modules: dict[str, Module] = {}
        self.broken: dict[str, Problems] = {}
        self.hidden: list[str] = []

    def take_shipped(self) -> None:
        for file in sorted(SHIPPED.glob(f"*/{FILE_NAME}")):
            problems = Problems()
            manifest = read_manifest(file, problems)
            self._keep(file.parent.name, Module(manifest, file.parent) if manifest else None, problems)

    def take_directory(self, directory: Path, site: bool) -> str:
        """Why it cannot be read; empty if it can."""
        try:
            with open_directory(directory) as opened:
                for name in self._free_names(directory, opened.names()):
                    problems = Problems()
                    module = _read_module(opened, directory / name, site, self.trust, problems)
                    self._keep(name, module, problems)
        except Distrusted as error:
            return self._refuse_all(directory, error)
        except OSError as error:
            return str(error.strerror)
        return ""

    def _refuse_all(self, directory: Path, error: Distrusted) -> str:
        """Of a directory that others can write we take the names only, to tell of them."""
        try:
            names = [each.name for each in directory.iterdir()]
        except OSError as fault:
            return str(fault.strerror)
        for name in self._free_names(directory, names):
            self._keep(name, None, _refusal(error, name))
        return ""

    def _free_names(self, directory: Path, names: list[str]) -> list[str]:
        """Of its folders with a manifest those whose name is not taken."""
        free = []
        for name in sorted(each for each in names if os.path.lexists(directory / each / FILE_NAME)):
            if name in self.modules or name in self.broken:
                self.hidden.append(f"{directory / name}: not used; a module {name} was found earlier")
            else:
                free.append(name)
        return free

    def _keep(self, name: str, module: Module | None, problems: Problems) -> None:
        if module:
            self.modules[name] = module
        else:
            self.broken[name] = problems


def _refusal(error: Distrusted, name: str) -> Problems:
    problems = Problems()
    problems.add_file(error.path, f"{error.reason}; {refused(name)}")
    return problems


def _read_module(
    opened: Directory, folder: Path, site: bool, trust: Trust, problems: Problems
) -> Module | None:
    """None, and problems, if it cannot be used."""
    try:
        with opened.inside(folder.name) as inner:
            files, signature = read_files(inner)
            owner = inner.owner
    except Distrusted as error:
        problems.extend(_refusal(error, folder.name))
        return None
    except OSError as error:
        problems.add_file(Path(error.filename or folder), f"cannot be read: {error.strerror}")
        return None
    manifest = parse_manifest(folder / FILE_NAME, files.get(FILE_NAME, b""), problems)
    if manifest is None:
        return None
    standing = judge(Found(folder, owner, manifest, files, signature, site), trust, problems)
    return Module(manifest, folder, files, standing) if standing else None
