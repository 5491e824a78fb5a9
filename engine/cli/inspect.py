"""``engine inspect``: what models promise."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.options import AsJson, contract_fields
from engine.utils import console
from engine.utils.console import with_options


@with_options(contract_fields, "stated")
def inspect(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="ONNX files, folders or globs.")],
    as_json: AsJson = False,
    *,
    stated: dict[str, Any],
) -> None:
    """Show what models promise: classes, layout, scaling, kind, ignored class."""
    import json

    from engine.cli.tables import contracts_table
    from engine.models.members import find_models
    from engine.models.opening import open_net

    members = [open_net(path, stated) for path in find_models(models)]
    if as_json:
        rows = [{"model": str(m.path), "sha256": m.checksum, **json.loads(m.contract.to_json())} for m in members]
        typer.echo(json.dumps(rows, indent=2))
    else:
        console.stdout().print(contracts_table(members))
