"""Lists the compiled extensions; everything else stands in pyproject.toml."""

import os
import shutil
import subprocess
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CORES = os.cpu_count() or 1
SANITIZE = os.environ.get("LAYER45_SANITIZE", "")  # for example "address,undefined"
OPTIMIZE = [] if "-O" in os.environ.get("CFLAGS", "") else ["-O3"]
COMPILE = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g", "-O1"] if SANITIZE else OPTIMIZE
LINK = [f"-fsanitize={SANITIZE}"] if SANITIZE else []


def present(package: str) -> bool:
    return bool(shutil.which("pkg-config")) and not subprocess.call(["pkg-config", "--exists", package])


ISAL = present("libisal")  # without it, Reed-Solomon runs on tables of our own
SODIUM = present("libsodium")  # without it, module fec refuses `adaptive`: its reports are signed
LIBRARIES = {
    "fastpath/capture": ["pcap"],
    "fastpath/reed_solomon": ["isal"] if ISAL else [],
    "modules/fec/report": ["sodium"] if SODIUM else [],
}
MACROS = [(name, None) for name, found in (("L45_ISAL", ISAL), ("L45_SODIUM", SODIUM)) if found]


def extension(source: Path) -> Extension:
    return Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        include_dirs=["layer45/fastpath"],
        libraries=LIBRARIES.get(source.relative_to("layer45").with_suffix("").as_posix(), []),
        define_macros=MACROS,
        extra_compile_args=[*COMPILE, "-Wall", "-Wno-unused-function"],
        extra_link_args=LINK,
    )


sources = [*Path("layer45/fastpath").glob("*.pyx"), *Path("layer45/modules").glob("*/*.pyx")]
setup(
    ext_modules=cythonize(
        [extension(source) for source in sorted(sources)],
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "binding": True,
        },
        nthreads=CORES,
    ),
    options={"build_ext": {"parallel": CORES}},
)
