"""ModelVersions as MLflow models: written as ONNX with a loader beside it, registered once per digest."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from registry import versions
from registry.entities import ModelContent, Version
from registry.errors import Conflict
from registry.interop import mlflow_pyfunc
from registry.interop.mlflow import DIGEST, REF, Server

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

DATA = "data"
"""Folder of an exported model that holds `model.onnx` and `sluicegate.json`."""
CONTENT = "sluicegate.json"
"""Our content of the model: read back, it makes the same version again."""
LOADER = "sluicegate_onnx_1"
"""Name the loader has inside of exported models; another number means another loader."""
_NEEDS = ("mlflow-skinny", "numpy", "onnxruntime", "pandas")


def found(server: Server, name: str, digest: str, *, prompt: bool = False) -> str | None:
    """The newest MLflow version of *name* that was exported from *digest*, or None."""
    wanted = f"name = '{name}' AND tags.`{DIGEST}` = '{digest}'"
    if prompt:
        wanted += " AND tags.`mlflow.prompt.is_prompt` = 'true'"
    with server.asked(f"versions of {name}"):
        there = server.client.search_model_versions(wanted, max_results=100)
    numbers = [int(version.version) for version in there]
    return str(max(numbers)) if numbers else None


def register(server: Server, experiment: str, version: Version, content: ModelContent, data: bytes) -> str:
    """
    Store the model and register it under its own name; returns MLflow's version number.

    Args:
        experiment: id of the experiment that shows it.
        data: the bytes of `content.artifact`.

    Raises:
        Conflict: MLflow holds a prompt of that name.
        MlflowFailed: the server refused.
    """
    what = f"model {version.name}:{version.number}"
    _named(server, version.name)
    tags = {DIGEST: version.digest, REF: f"{version.name}:{version.number}"}
    client = server.client
    with tempfile.TemporaryDirectory(prefix="sluicegate-mlflow-") as temporary, server.asked(what):
        kept = client.create_logged_model(experiment, name=version.name, tags=tags)
        status: Literal["READY", "FAILED"] = "FAILED"
        try:
            folder = Path(temporary) / "model"
            write(folder, version, content, data, model_id=str(kept.model_id))
            client.log_model_artifacts(kept.model_id, str(folder))
            status = "READY"
        finally:
            client.finalize_logged_model(kept.model_id, status)
        made = client.create_model_version(
            version.name,
            f"models:/{kept.model_id}",
            tags=tags,
            description=f"Sluicegate {what}, {version.digest}",
            model_id=kept.model_id,
            await_creation_for=30,
        )
    return str(made.version)


def write(
    folder: Path, version: Version, content: ModelContent, data: bytes, *, model_id: str | None = None
) -> None:
    """
    An MLflow model in *folder*: flavours `python_function` and `onnx`, signature, requirements.

    `mlflow.pyfunc.load_model` needs no more than `requirements.txt` names; nothing in it is pickled.
    """
    from mlflow.models import Model

    (folder / DATA).mkdir(parents=True)
    (folder / DATA / "model.onnx").write_bytes(data)
    (folder / DATA / CONTENT).write_text(json.dumps(versions.plain(content), indent=1), encoding="utf-8")
    (folder / "code").mkdir()
    shutil.copyfile(mlflow_pyfunc.__file__, folder / "code" / f"{LOADER}.py")
    needs = "".join(f"{name}=={number}\n" for name in _NEEDS if (number := _installed(name)))
    (folder / "requirements.txt").write_text(needs)
    python = f"python: {platform.python_version()}\nbuild_dependencies:\n- pip\ndependencies:\n"
    (folder / "python_env.yaml").write_text(python + "- -r requirements.txt\n")
    about = {"digest": version.digest, "ref": f"{version.name}:{version.number}"}
    model = Model(signature=signature(content), metadata={"sluicegate": about}, model_id=model_id)
    model.add_flavor(
        "python_function",
        loader_module=LOADER,
        python_version=platform.python_version(),
        data=DATA,
        code="code",
        env={"virtualenv": "python_env.yaml"},
    )
    model.add_flavor(
        "onnx",
        onnx_version=_installed("onnx") or "1.16.0",
        data=f"{DATA}/model.onnx",
        providers=["CPUExecutionProvider"],
        code=None,
    )
    model.save(str(folder / "MLmodel"))


def signature(content: ModelContent) -> ModelSignature:
    """Named columns as MLflow checks them: text or double, optional where our model takes nothing."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    types = {"text": "string", "number": "double"}
    given: list[ColSpec | TensorSpec] = [
        ColSpec(types[f.dtype], f.name, required=not f.nullable) for f in content.features
    ]
    answered: list[ColSpec | TensorSpec] = [ColSpec("string", "label")]
    answered += [ColSpec("double", f"probability_{name}") for name in content.classes]
    return ModelSignature(Schema(given), Schema(answered))


def _named(server: Server, name: str) -> None:
    """Make the registered model *name* where there is none."""
    from mlflow.exceptions import MlflowException

    with server.asked(f"model {name}"):
        try:
            server.client.create_registered_model(name)
        except MlflowException as error:
            if "prompt" in str(error).lower():
                raise Conflict(
                    f"MLflow holds a prompt {name!r}, and its prompts and models share their names: "
                    "export prompts with --prompt-prefix, and delete that one in MLflow"
                ) from error
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _installed(name: str) -> str | None:
    try:
        return installed(name)
    except PackageNotFoundError:
        return None
