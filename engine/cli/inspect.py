"""``engine inspect``: what models are, what is adapted to, what stays open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.options import AsJson, contract_fields
from engine.errors import ContractError, EngineError, option
from engine.utils import console
from engine.utils.console import with_options

if TYPE_CHECKING:
    from engine.models.opening import Opened


@with_options(contract_fields, "stated")
def inspect(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="ONNX files, folders or globs.")],
    as_json: AsJson = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Show what ONNX files are: classes, layout, scaling, kind, what the engine adapts to, and what stays open.

    Nothing is refused: a question is listed with the option that settles it, a file that is no ONNX model with the
    reason (the exit code is then 2). Nets without a contract are run once, on noise.

    Examples:
      engine inspect models/

      engine inspect net.onnx --normalize imagenet --json
    """
    import json

    from engine.cli.tables import contracts_table, remarks
    from engine.models.facts import Facts, stated_facts
    from engine.models.members import find_models
    from engine.models.opening import inspect_net
    from engine.models.runtimes.providers import mixed_wheels
    from engine.runs.options import check_named_outputs, output_of

    paths = find_models(models)
    if mixed := mixed_wheels():
        console.say(mixed)
    named = stated.pop("output_name", None)
    check_named_outputs(named, paths)
    facts = stated_facts(stated, option)
    rows: list[dict[str, Any]] = []
    known: list[Opened] = []
    told: list[str] = []
    for path in paths:
        try:
            opened = inspect_net(path, [*facts, Facts(option("output_name"), {"output_name": output_of(named, path)})])
        except ContractError as error:
            row, lines = _unclear(path, str(error))
            told += lines
        except EngineError as error:
            row = {"model": str(path), "error": console.one_line(str(error))}
        else:
            known.append(opened)
            row = _row(path, opened)
        rows.append(row)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        if known:
            console.stdout().print(contracts_table(known))
        for line in (*remarks(known), *told):
            console.line(line)
    refused = [row["error"] for row in rows if "error" in row]
    for text in refused:
        console.say(f"error: {text}")
    if refused:
        raise typer.Exit(2)
    if len(known) == len(rows) and not any(opened.questions for opened in known):
        named = [word for model in models for word in ("--models", model)]
        console.say_next("engine", "ensemble", *named, "--input", "IMAGES", "--output", "masks.csv")
    else:
        console.say("next: engine inspect again, with the options named above")


def _unclear(path: Path, reason: str) -> tuple[dict[str, Any], list[str]]:
    """Return what is known of an ONNX file whose input or output cannot be settled, as JSON types and as lines."""
    from engine.models.opening import ports_of

    ports = ports_of(path)
    row: dict[str, Any] = {
        "model": str(path),
        "inputs": [port.told for port in ports.inputs],
        "outputs": [port.told for port in ports.outputs],
        "open": [console.one_line(reason.removeprefix(f"{path}: "))],
    }
    lines = [f"{path.name}: {name}: {'; '.join(row[name]) or 'none'}" for name in ("inputs", "outputs")]
    return row, [*lines, f"{path.name}: open: {row['open'][0]}"]


def _row(path: Path, opened: Opened) -> dict[str, Any]:
    """Return what is known of a model as plain JSON types."""
    import json

    held = opened.found.fields
    known = json.loads(opened.contract.to_json()) if opened.contract is not None else held
    return {
        "model": str(path),
        "sha256": opened.checksum,
        **known,
        "inputs": [port.told for port in opened.ports.inputs],
        "outputs": [port.told for port in opened.ports.outputs],
        "input": opened.found.image.told,
        "output": opened.found.output.told,
        "adapted": opened.adapted,
        "warnings": opened.warnings,
        "open": opened.questions,
        "origins": opened.found.origins,
        "metadata": dict(opened.notes),
    }
