"""Bring a model from MLflow: its ONNX file and its signature, never anything that has to be unpickled."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, cast

from registry import models, parse, plugins
from registry.clock import Clock, utc_now
from registry.entities import Feature, ModelContent
from registry.errors import BadInput
from registry.ids import digest_bytes
from registry.interop import onnx_graphs
from registry.interop.errors import NotImportable
from registry.interop.mlflow import Server, connect
from registry.interop.mlflow_models import CONTENT
from registry.refs import check_name
from registry.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model, ModelSignature
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

MAX_BYTES = 1_000_000_000
"""Largest model that is downloaded, all its files together."""
_URI = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[\w-]+)|/(?P<version>[1-9]\d{0,9}))")
_TYPES = {"string": "text", "integer": "number", "long": "number", "float": "number", "double": "number",
          "boolean": "number"}  # fmt: skip
_WHOLE = frozenset({"integer", "long", "boolean"})
_AS_ONNX = (
    "log it as ONNX: mlflow.onnx.log_model(skl2onnx.to_onnx(model, table[:1]), name=…, "
    "signature=mlflow.models.infer_signature(table, model.predict(table)))"
)


class Runtime(Protocol):
    """A plug-in of `sluicegate.runtimes`, as far as it is used here."""

    def __call__(
        self, data: bytes, content: ModelContent, *, threads: int
    ) -> Callable[[Sequence[Sequence[object]]], list[list[float]]]:
        """A function from columns to probabilities."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """What MLflow holds under one version, and what it becomes here."""

    content: ModelContent
    data: bytes
    meta: Mapping[str, Any]
    adapted: bool
    """Whether operators were put around its graph."""


def import_model(
    workspace: Workspace,
    model_uri: str,
    *,
    uri: str,
    name: str | None = None,
    classes: Sequence[str] = (),
    token: str | None = None,
    clock: Clock = utc_now,
) -> dict[str, Any]:
    """
    Register the model that *model_uri* names on the MLflow server *uri*, once it has answered a row.

    Idempotent: same bytes, same version.

    Args:
        model_uri: `models:/name@alias` or `models:/name/3`.
        name: what to call it here; by default as in MLflow, in lower case.
        classes: names of its classes in the order of its probabilities, where its graph does not say.

    Returns:
        `ok`, name, number, digest, artifact, `adapted`, and `mlflow`: name, version, run id, source.

    Raises:
        BadInput: *model_uri* or *name* is malformed.
        NotImportable: it has no ONNX flavour or no signature of named columns, or is no classifier.
        ModelUnusable: the runtime cannot load it.
        MlflowFailed: the server refused, or has no such model.
        MissingExtra: MLflow, onnx or onnxruntime is not installed.
    """
    match = _URI.fullmatch(model_uri)
    if match is None:
        raise BadInput(f"{model_uri!r} is not models:/name@alias or models:/name/3")
    called = check_name(name or match["name"].lower(), "--name" if name else "MLflow's name (give --name)")
    with workspace.viewing("mlflow.import", token):
        pass  # who may not write needs not ask MLflow either
    server = connect(uri)
    fetched = _fetched(server, match, classes)
    _try(fetched)
    workspace.artifacts.put(fetched.data)
    with workspace.acting("mlflow.import", token) as (connection, who):
        version = models.push(
            connection, called, fetched.content, actor=who, now=clock(), meta={"mlflow": fetched.meta}
        )
    return {
        "ok": True,
        "kind": "model",
        "name": version.name,
        "number": version.number,
        "digest": version.digest,
        "artifact": fetched.content.artifact,
        "adapted": fetched.adapted,
        "mlflow": dict(fetched.meta),
    }


def content_from(
    signature: ModelSignature | None, data: bytes, classes: Sequence[str] = ()
) -> tuple[ModelContent, bytes]:
    """
    The content of an ONNX classifier with MLflow's *signature*, and its bytes in the shape served here.

    Raises:
        NotImportable: no signature of named columns, or the graph does not fit it.
    """
    columns = _columns(signature)
    model = onnx_graphs.read(data)
    named = [given.name for given in onnx_graphs.inputs(model)]
    if len(named) > 1:
        if set(named) != columns.keys():
            raise NotImportable(
                f"the model's inputs {sorted(named)} are not the columns {sorted(columns)} of its signature"
            )
        columns = {column: columns[column] for column in named}
    classes = tuple(classes) or onnx_graphs.classes_of(model)
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise NotImportable("the graph does not say which classes its probabilities are of: give --classes")
    shape = [(feature.name, feature.dtype) for feature in columns.values()]
    if onnx_graphs.adapted(model, shape):
        data = model.SerializeToString(deterministic=True)
    features = tuple(columns.values())
    return ModelContent("onnx", digest_bytes(data), features, tuple(classes), {}), data


def _fetched(server: Server, match: re.Match[str], classes: Sequence[str]) -> Fetched:
    from mlflow.models import Model
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client, what = server.client, match[0]
    with server.asked(what), tempfile.TemporaryDirectory(prefix="sluicegate-mlflow-") as temporary:
        version: ModelVersion = (
            client.get_model_version_by_alias(match["name"], match["alias"])
            if match["alias"]
            else client.get_model_version(match["name"], match["version"])
        )
        source = client.get_model_version_download_uri(version.name, version.version)
        there = get_artifact_repository(source, tracking_uri=server.uri, registry_uri=server.uri)
        folder = Path(temporary)
        model: Model = Model.load(str(_file(there, "MLmodel", folder)))
        path = onnx_path(model, what)
        data = _download(there, path, folder)
        own = _own_content(there, path, folder)
    original = digest_bytes(data)
    if own is not None:
        if own.artifact != original:
            raise NotImportable(f"{what}: {CONTENT} is for {own.artifact}, but the model is {original}")
        content = own
    else:
        try:
            content, data = content_from(model.signature, data, classes)
        except NotImportable as error:
            raise NotImportable(f"{what}: {error.message}") from error
    meta = {
        "uri": server.shown,
        "name": version.name,
        "version": str(version.version),
        "run_id": version.run_id or None,
        "source": version.source,
        "artifact": original,
    }
    return Fetched(content, data, meta, content.artifact != original)


def onnx_path(model: Model, what: str) -> str:
    """
    Where the model's ONNX file lies, relative to the model.

    Raises:
        NotImportable: it has no ONNX flavour, or names a file outside of itself.
    """
    flavour = model.flavors.get("onnx")
    if flavour is None:
        held = sorted(model.flavors.keys() - {"python_function"}) or ["python_function"]
        how = model.flavors.get("sklearn", {}).get("serialization_format")
        as_what = f"{', '.join(held)} ({how})" if how else ", ".join(held)
        raise NotImportable(
            f"{what} is kept as {as_what}: loading it could run code, so it is refused; {_AS_ONNX}"
        )
    return _inside(str(flavour.get("data", "model.onnx")), what)


def _inside(path: str, what: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise NotImportable(f"{what}: its file {path!r} lies outside of the model")
    return str(parts)


def _download(there: ArtifactRepository, path: str, folder: Path) -> bytes:
    """
    The ONNX file at *path* with everything it keeps in files beside it.

    Raises:
        NotImportable: together they are too large, or one lies elsewhere.
    """
    sizes = _listed(there, path)
    if sizes.get(path, 0) > MAX_BYTES:
        raise NotImportable(f"{path}: the model is larger than {MAX_BYTES:,} bytes")
    data = _file(there, path, folder).read_bytes()
    model = onnx_graphs.read(data)
    beside = PurePosixPath(path).parent
    outside = sorted(str(beside / _inside(name, path)) for name in onnx_graphs.files_of(model))
    if not outside:
        return data
    if sum(sizes.get(name, 0) for name in [path, *outside]) > MAX_BYTES:
        raise NotImportable(f"{path}: the model is larger than {MAX_BYTES:,} bytes")
    for name in outside:
        _file(there, name, folder)
    return onnx_graphs.whole(model, (folder / path).parent)


def _listed(there: ArtifactRepository, path: str) -> dict[str, int]:
    """The files in the folder of *path* and their sizes in bytes."""
    beside = str(PurePosixPath(path).parent)
    items = there.list_artifacts(None if beside == "." else beside)
    return {item.path: item.file_size or 0 for item in items}


def _file(there: ArtifactRepository, path: str, folder: Path) -> Path:
    there.download_artifacts(path, str(folder))  # type: ignore[no-untyped-call]
    return folder / path


def _own_content(there: ArtifactRepository, path: str, folder: Path) -> ModelContent | None:
    """The content that our own export left beside the model."""
    name = str(PurePosixPath(path).parent / CONTENT)
    if name not in _listed(there, path):
        return None
    text = _file(there, name, folder).read_text(encoding="utf-8")
    try:
        return parse.build(json.loads(text), ModelContent, source=name)
    except ValueError as error:
        raise NotImportable(f"{name}: is not JSON") from error


def _columns(signature: ModelSignature | None) -> dict[str, Feature]:
    """The features that a signature names, in its order."""
    if signature is None or signature.inputs is None:
        raise NotImportable(f"it has no signature, so its columns have neither names nor types; {_AS_ONNX}")
    if signature.inputs.is_tensor_spec() or not signature.inputs.has_input_names():
        raise NotImportable(
            "its signature is one of tensors without column names; infer it from a pandas DataFrame instead "
            "of an array"
        )
    features = {}
    for column in signature.inputs.inputs:
        kind = getattr(column.type, "name", str(column.type))
        if kind not in _TYPES:
            raise NotImportable(f"column {column.name!r} is {kind}, not text, number or boolean")
        nullable = not column.required and kind not in _WHOLE
        dtype = "text" if _TYPES[kind] == "text" else "number"
        features[column.name] = Feature(column.name, cast("Any", dtype), nullable=nullable)
    return features


def _try(fetched: Fetched) -> None:
    """Load the model and ask it once, as serving it will."""
    runtime = cast("Runtime", plugins.load("runtimes", fetched.content.format))
    score = runtime(fetched.data, fetched.content, threads=1)
    columns = [["x"] if feature.dtype == "text" else [0.0] for feature in fetched.content.features]
    try:
        (row,) = score(columns)
    except Exception as error:  # onnxruntime's errors share no base class
        reason = str(error).splitlines()[0][:200]
        raise NotImportable(f"the model cannot be asked with one row: {reason}") from error
    if len(row) != len(fetched.content.classes) or not all(-1e-4 <= value <= 1.0001 for value in row):
        raise NotImportable(
            f"the model answers one row with {len(row)} numbers; it must be one probability for each of the "
            f"{len(fetched.content.classes)} classes"
        )
