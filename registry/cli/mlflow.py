"""`registry mlflow import|export`: models, prompts and evaluation runs between here and an MLflow server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from registry.errors import BadInput
from registry.interop import mlflow_export, mlflow_import
from registry.terminal import EXIT_FAIL, Json, command_group, show, table
from registry.workspace import open_workspace

Uri = Annotated[
    str, typer.Option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="The MLflow server, http://…")
]


def add_to(application: typer.Typer) -> None:
    """Hang the group `mlflow` into *application*."""
    group = command_group("Exchange models, prompts and evaluation runs with an MLflow server.")
    group.command("import", epilog="Example: registry mlflow import models:/churn@champion --name churn")(
        import_model
    )
    group.command("export", epilog="Example: registry mlflow export churn@production prompt/support --json")(
        export
    )
    application.add_typer(group, name="mlflow")


def import_model(
    model: Annotated[str, typer.Argument(help="models:/name@alias or models:/name/3.")],
    *,
    tracking_uri: Uri = "",
    name: Annotated[str | None, typer.Option(help="Its name here; by default as in MLflow.")] = None,
    classes: Annotated[
        str,
        typer.Option(help="Its classes by comma, in the order of its probabilities."),
    ] = "",
    as_json: Json = False,
) -> None:
    """Register a classifier that MLflow keeps as ONNX with a signature; nothing is ever unpickled."""
    named = [part.strip() for part in classes.split(",") if part.strip()]
    with open_workspace() as workspace:
        answer = mlflow_import.import_model(workspace, model, uri=tracking_uri, name=name, classes=named)
    source = answer["mlflow"]
    here = f"model {answer['name']}:{answer['number']}  {answer['digest']}"
    text = f"{here}  from {source['name']}/{source['version']}"
    show(answer, text, as_json=as_json)


def export(
    refs: Annotated[
        list[str] | None,
        typer.Argument(help="Releases such as support@production; model/NAME; prompt/NAME:3."),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every model, prompt and run.")] = False,
    tracking_uri: Uri = "",
    experiment: Annotated[str, typer.Option(help="MLflow experiment of the models and runs.")] = "sluicegate",
    prompt_prefix: Annotated[str, typer.Option(help="Put before the names of prompts.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Give MLflow what is not there yet (exit code 1 where a prompt of ours was altered in MLflow)."""
    if bool(refs) == everything:
        raise BadInput("name what to export, or give --all")
    with open_workspace() as workspace:
        answer = mlflow_export.export(
            workspace,
            None if everything else refs,
            uri=tracking_uri,
            experiment=experiment,
            prompt_prefix=prompt_prefix,
            dry_run=dry_run,
        )
    show(answer, lambda: _text(answer), as_json=as_json)
    if not answer["ok"]:
        raise typer.Exit(EXIT_FAIL)


def _text(answer: dict[str, Any]) -> str:
    rows = [
        (item["kind"], item["ref"], item["outcome"], item["mlflow"] or "-", " ".join(item["aliases"]) or "-")
        for item in answer["items"]
    ]
    verb = "would change" if answer["dry_run"] else "changed"
    end = f"{verb} {answer['changed']} of {len(rows)} at {answer['tracking_uri']}"
    return f"{table(('KIND', 'REF', 'OUTCOME', 'MLFLOW', 'ALIASES'), rows)}\n{end}"
