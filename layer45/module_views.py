"""Modules as tables and documents, and whether one is whole."""

from dataclasses import asdict
from typing import Any

from layer45.errors import Layer45Error
from layer45.module import Module
from layer45.output import print_table
from layer45.parameter import Parameter
from layer45.problems import Problems
from layer45.ratio import Ratio


def summary(module: Module) -> dict[str, Any]:
    """A module in one line."""
    manifest = module.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "kind": manifest.kind,
        "language": manifest.language,
        "transports": list(manifest.transports),
        "built": module.code is not None,
        "shipped": module.shipped,
        "trust": trust(module),
        "folder": str(module.folder),
        "summary": manifest.summary,
    }


def trust(module: Module) -> dict[str, Any]:
    """Who vouches for it. state: "shipped", "signed", "unsigned" or "unknown key"."""
    if module.standing is None:
        return {"state": "shipped"}
    return {"state": STATES[module.standing.signature], **module.standing.as_dict()}


STATES = {"valid": "signed", "none": "unsigned", "unknown key": "unknown key"}


def _shown_trust(told: dict[str, Any] | None) -> str:
    """In a word or two."""
    if told is None:
        return "refused"
    return f"signed by {told['signed_by']}" if told["state"] == "signed" else str(told["state"])


def document(module: Module) -> dict[str, Any]:
    """All that a module declares."""
    manifest = module.manifest
    return {
        **summary(module),
        "directions": list(manifest.directions),
        "inverse": manifest.inverse,
        "reads": manifest.reads,
        "gso": manifest.gso,
        "growth_bytes": manifest.growth_bytes,
        "stream_growth": manifest.stream_growth,
        "flow_state_bytes": manifest.flow_state_bytes,
        "emits": list(manifest.emits),
        "emits_bytes": manifest.emits_bytes,
        "holds": list(manifest.holds),
        "looks_only": manifest.looks_only,
        "lets_go": manifest.lets_go,
        "provides": list(manifest.provides),
        "hides": list(manifest.hides),
        "runs_after": list(manifest.runs_after),
        "runs_before": list(manifest.runs_before),
        "notices": list(manifest.notices),
        "parameters": [_parameter(parameter) for parameter in manifest.parameters.values()],
        "counters": dict(manifest.counters),
        "ratios": {name: _ratio(ratio) for name, ratio in manifest.ratios.items()},
    }


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {"of": list(ratio.of), "to": list(ratio.to), "help": ratio.help}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    fields = asdict(parameter)
    return {
        "name": parameter.name,
        "type": parameter.type,
        "unit": parameter.unit,
        "required": parameter.required,
        "local": parameter.local,
        "default": shown_value(fields["default"]),
        "expected": parameter.expected,
        "help": parameter.help,
    }


def shown_value(value: object) -> object:
    """A validated value as a policy writes it."""
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = ""
        return text if text.isprintable() and (text or not value) else f"hex:{value.hex(' ')}"
    return f"{value[0]}-{value[1]}" if isinstance(value, tuple) else value


def show_list(modules: list[dict[str, Any]]) -> None:
    """One line each."""
    print_table(
        ("MODULE", "VERSION", "KIND", "TRANSPORTS", "LANGUAGE", "BUILT", "TRUST", "SUMMARY"),
        [
            (m["name"], m["version"], m["kind"], " ".join(m["transports"]), m["language"],
             m["built"], _shown_trust(m["trust"]), m["summary"])
            for m in modules
        ],
    )  # fmt: skip


def show_module(module: dict[str, Any]) -> None:
    """What it declares, then its parameters, counters and ratios."""
    print(f"{module['name']} {module['version']}: {module['summary']}\n")
    plain = {
        key: value
        for key, value in module.items()
        if key not in ("name", "version", "summary", "parameters", "counters", "ratios")
    }
    plain["trust"] = _shown_trust(module["trust"])
    print_table(("DECLARES", ""), [(key, _plain(value)) for key, value in plain.items()])
    print()
    print_table(
        ("PARAMETER", "EXPECTED", "DEFAULT", "ENDS", "MEANING"),
        [(p["name"], p["expected"], "(required)" if p["required"] else _plain(p["default"]),
          "may differ" if p["local"] else "-", p["help"])
         for p in module["parameters"]],
    )  # fmt: skip
    print()
    print_table(("COUNTER", "MEANING"), list(module["counters"].items()))
    if module["ratios"]:
        print()
    print_table(
        ("RATIO", "IS", "MEANING"),
        [(name, f"{_sum(ratio['of'])} / {_sum(ratio['to'])}", ratio["help"])
         for name, ratio in module["ratios"].items()],
    )  # fmt: skip


def _sum(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"({' + '.join(names)})"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else f'"{value}"' if value == "" else str(value)


def verify_module(name: str, module: Module | None, refusal: Problems | None) -> dict[str, Any]:
    """One result: who vouches for it, and all that is wrong. module: None if it is refused."""
    problems = _code_problems(module) if module else []
    if refusal:
        problems += refusal.sorted_lines()
    told = trust(module) if module else None
    return {"module": name, "ok": not problems, "trust": told, "problems": problems}


def _code_problems(module: Module) -> list[str]:
    """Everything that is wrong with its code; its manifest is right, or there would be no Module."""
    problems = []
    loads = [module.load_code]
    if module.manifest.language == "cython":
        loads.append(module.load_reference)  # type: ignore[arg-type]
    for load in loads:
        try:
            load()
        except Layer45Error as error:
            problems.append(str(error))
    if not module.has("README.md"):
        problems.append(f"{module.folder / 'README.md'}: no such file")
    return problems


def show_results(results: list[dict[str, Any]]) -> None:
    """One line each."""
    print_table(
        ("MODULE", "TRUST", "RESULT"),
        [(each["module"], _shown_trust(each["trust"]), "; ".join(each["problems"]) or "ok")
         for each in results],
    )  # fmt: skip
