"""Whatever a release is made of: what is exported after an import is what was imported, byte for byte."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import archive, bundle, datasets, policies, prompts, releases, suites
from registry.entities import GatePolicy, PromptMessage
from registry.errors import BadInput
from registry.releases import ReleaseFile
from tests.registry.conftest import NOW, PROMPT, House
from tests.registry.test_archive import export, other, released, take, trust

__all__ = ["released"]

NAMES = st.sampled_from(["a", "b", "support"])


@settings(max_examples=12, deadline=None)
@given(
    texts=st.lists(
        st.text("xyz{}% äß", max_size=8).map(lambda t: t.replace("{", "(").replace("%", "")),
        min_size=1,
        max_size=4,
    ),
    called=st.lists(NAMES, min_size=4, max_size=4),
    rows=st.integers(1, 3),
    runs=st.integers(0, 3),
    signers=st.integers(1, 2),
    gated=st.booleans(),
)
def test_exporting_what_was_imported_gives_the_same_bytes(
    texts: list[str], called: list[str], rows: int, runs: int, signers: int, gated: bool
) -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        keys = [Ed25519PrivateKey.generate() for _ in range(signers)]
        with other(folder / "here") as here, other(folder / "there") as there:
            for key in keys:
                trust(here, key)
                trust(there, key)
            with here.writing() as connection:
                for name, line in zip(called, texts, strict=False):
                    own = replace(PROMPT, messages=(PromptMessage("user", "{{ question }}" + line),))
                    prompts.push(connection, name, own, actor="ann", now=NOW)
                lines = b"".join(b'{"id":"%d"}\n' % number for number in range(rows))
                dataset = datasets.push(connection, here.artifacts, "q", lines, actor="ann", now=NOW)
                suite = suites.push(connection, "quality", {"dataset": dataset.digest}, actor="ann", now=NOW)
                if gated:
                    gate = policies.PolicyFile("gate", "support", gate=GatePolicy(suites=("quality",)))
                    policies.push(connection, gate, actor="ann", now=NOW)
                file = ReleaseFile("support", "chat", "openai/one", prompt=called[0])
                release = releases.create(connection, file, actor="ann", now=NOW)
            house = House(here, keys[0], suite, dataset)
            for run in range(runs):
                house.evidence(release, key=keys[run % signers], valid_hours=run + 1)
            first = export(here, folder / "first.tar")
            take(there, folder / "first.tar", gates=True)
            assert export(there, folder / "second.tar") == first
            assert export(here, folder / "again.tar") == first


def test_size_and_number_of_members_are_bounded(released: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at most 1000 are read, see --max-gb"):
        archive.inspect(released, most_bytes=1000)
    with pytest.raises(BadInput, match="more than 3 members"), bundle.reading(released, most_members=3):
        pass
    with pytest.raises(BadInput, match=r"nothing\.tar: cannot be read"):
        archive.inspect(tmp_path / "nothing.tar")
