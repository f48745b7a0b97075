"""What this host can do: every check with its result and, where something is missing, the command that mends
it.

Read-only: what must be tried is tried in a network namespace of its own that ends with the try
(doctor_kernel).
"""

from dataclasses import asdict, dataclass
from typing import Literal

Result = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Finding:
    """One check. A required one that is missing makes the host unfit; mend is empty where all is well."""

    area: str
    check: str
    result: Result
    detail: str
    required: bool = False
    mend: str = ""

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        return asdict(self)


def found(area: str, check: str, fine: bool, detail: str, mend: str, required: bool = False) -> Finding:
    """ok, or else: missing if it is required, warn if not."""
    if fine:
        return Finding(area, check, "ok", detail, required)
    return Finding(area, check, "missing" if required else "warn", detail, required, mend)


def examine(mark_mask: int, first_queue: int) -> list[Finding]:
    """Every check, in the order of the house: programs, Python, kernel, then what others on this host do."""
    from layer45 import doctor_clashes, doctor_host, doctor_kernel

    return [
        *doctor_host.examine(),
        *doctor_kernel.examine(),
        *doctor_clashes.examine(mark_mask, first_queue),
    ]


def fit(findings: list[Finding]) -> bool:
    """Whether the daemon can run here."""
    return not any(finding.result == "missing" and finding.required for finding in findings)
