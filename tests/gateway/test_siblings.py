"""Several processes as one: their metrics add up, and none waits for one that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.parser import text_string_to_metric_families

from gateway.controlplane.siblings import Siblings, make_folder, merge

Samples = Counter[tuple[str, frozenset[tuple[str, str]]]]
NAMES = st.sampled_from(["a", "a_b", "a_count", "requests", "x_sum", "x"])
VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", "\n", "}", '{worker="9"}', ",", '\\"} 1', "# TYPE a counter"]
)
KINDS = st.sampled_from([PrometheusCounter, Gauge, Histogram, Info, Summary])


@st.composite
def texts(draw: st.DrawFn) -> dict[int, bytes]:
    """What up to three processes say, of the same code: a name has one type and one set of labels."""
    kinds = draw(st.dictionaries(NAMES, st.tuples(KINDS, st.booleans(), VALUES), max_size=4))
    found = {}
    for worker in draw(st.sets(st.integers(0, 12), max_size=3)):
        registry = CollectorRegistry()
        for name, (kind, labelled, text) in kinds.items():
            with contextlib.suppress(ValueError):  # names that clash, such as x and x_sum
                metric = kind(name, text, ["route", "le2"] if labelled else [], registry=registry)
                for _ in range(draw(st.integers(0, 3))):
                    child = metric.labels(draw(VALUES), draw(VALUES)) if labelled else metric
                    observe(child, draw(st.integers(0, 9)))
        found[worker] = generate_latest(registry)
    return found


def observe(metric: object, number: int) -> None:
    if isinstance(metric, (Histogram, Summary)):
        metric.observe(number)
    elif isinstance(metric, Info):
        metric.info({"number": str(number)})
    elif isinstance(metric, (PrometheusCounter, Gauge)):
        metric.inc(number)


def families(text: bytes) -> list[tuple[str, str, str]]:
    """Name, type and help; two entries of one name would mean that its samples do not stand together."""
    return [(f.name, f.type, f.documentation) for f in text_string_to_metric_families(text.decode())]


def samples(text: bytes) -> Samples:
    found: Samples = Counter()
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[sample.name, frozenset(sample.labels.items())] += int(sample.value)
    return found


@given(texts())
def test_the_sum_over_workers_is_what_they_said(said: dict[int, bytes]) -> None:
    expected: Samples = Counter()
    for text in said.values():
        expected.update(samples(text))
    summed: Samples = Counter()
    for (name, labels), value in samples(merge(said)).items():
        summed[name, frozenset(pair for pair in labels if pair[0] != "worker")] += value
    assert summed == expected


@given(texts())
def test_each_sample_says_whose_it_is(said: dict[int, bytes]) -> None:
    expected = {
        (name, labels | {("worker", str(worker))}): value
        for worker, text in said.items()
        for (name, labels), value in samples(text).items()
    }
    assert dict(samples(merge(said))) == expected


@given(texts())
def test_families_stand_together_with_one_help_and_type(said: dict[int, bytes]) -> None:
    merged = merge(said)
    heads = [line for line in merged.split(b"\n") if line.startswith((b"# HELP ", b"# TYPE "))]
    assert len(heads) == len({tuple(line.split()[1:3]) for line in heads})
    expected = sorted({family for text in said.values() for family in families(text)})
    assert sorted(families(merged)) == expected


def test_labels_are_added_in_every_notation() -> None:
    text = (
        b'a 1\na{} 2\na{ } 3 1700000000\na {b="}"} 4\na{b="{\\"\\\\",c=""} +Inf\n# a comment\n\nb_sum NaN\n'
    )
    assert merge({7: text}) == (
        b'a{worker="7"} 1\na{worker="7"} 2\na{worker="7"} 3 1700000000\na{worker="7",b="}"} 4\n'
        b'a{worker="7",b="{\\"\\\\",c=""} +Inf\nb_sum{worker="7"} NaN\n'
    )


def test_a_large_scrape_is_merged_in_little_time(record_property: object) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("seconds", "Time.", ["route", "release"], registry=registry)
    for number in range(1000):
        histogram.labels("/v1/chat/completions", f"release-{number}").observe(1)
    text = generate_latest(registry)
    began = time.process_time()
    merged = merge({0: text, 1: text})
    took_s = time.process_time() - began
    lines = merged.count(b"\n")
    print(f"{lines} lines merged in {took_s * 1000:.0f} ms of CPU")
    assert lines == 2 * text.count(b"\n") - 4
    assert took_s < 1


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = make_folder(tmp_path)
    yield made
    for path in made.glob("*"):
        path.unlink()
    with contextlib.suppress(FileNotFoundError):
        made.rmdir()


@contextlib.asynccontextmanager
async def started(folder: Path, count: int, *indexes: int) -> AsyncIterator[list[Siblings]]:
    running = [Siblings(folder, index, count) for index in indexes]
    for index, siblings in zip(indexes, running, strict=True):
        state = {"pid": 100 + index, "revision": 3, "ready": True}
        await siblings.start(lambda index=index: b"up %d\n" % index, lambda state=state: state)  # type: ignore[misc]
    try:
        yield running
    finally:
        for siblings in running:
            await siblings.stop()


UP = (
    b"# HELP sluicegate_worker_up Whether this process of the gateway answers.\n"
    b"# TYPE sluicegate_worker_up gauge\n"
    b'sluicegate_worker_up{worker="0"} %d\n'
    b'sluicegate_worker_up{worker="1"} %d\n'
    b'sluicegate_worker_up{worker="2"} %d\n'
)
DOWN = {"pid": None, "revision": None, "ready": False}


def test_whichever_is_asked_answers_for_all(folder: Path) -> None:
    async def run() -> None:
        async with started(folder, 3, 0, 1, 2) as running:
            for index, siblings in enumerate(running):
                assert await siblings.metrics(b"up %d\n" % index) == (
                    b'up{worker="0"} 0\nup{worker="1"} 1\nup{worker="2"} 2\n' + UP % (1, 1, 1)
                )
                assert await siblings.states() == [
                    {"index": each, "pid": 100 + each, "revision": 3, "ready": True} for each in range(3)
                ]

    asyncio.run(run())
    assert not folder.exists()


def test_a_process_that_is_gone_is_down_and_may_come_back(folder: Path) -> None:
    async def run() -> None:
        async with started(folder, 3, 0, 2) as (first, last):
            assert await first.metrics(b"up 0\n") == b'up{worker="0"} 0\nup{worker="2"} 2\n' + UP % (1, 0, 1)
            (folder / "worker-1.sock").write_bytes(b"left by a process that was killed")
            async with started(folder, 3, 1):
                assert (await last.states())[1]["pid"] == 101
            assert (await last.states())[1] == {"index": 1, **DOWN}

    asyncio.run(run())


@pytest.mark.parametrize("answer", [b"", b"nothing\n", b"99\nshort", b"999999999\nx", b"-1\n", b"3\n{]}"])
def test_an_answer_that_is_none_counts_as_down(folder: Path, answer: bytes) -> None:
    async def broken(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def run() -> None:
        async with started(folder, 2, 0) as (first,):
            server = await asyncio.start_unix_server(broken, folder / "worker-1.sock")
            assert (await first.states())[1] == {"index": 1, **DOWN}
            server.close()

    asyncio.run(run())


def test_two_that_hang_delay_an_answer_by_one_second_together(folder: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def run() -> float:
        async with started(folder, 3, 0) as (first,):
            servers = [
                await asyncio.start_unix_server(hang, folder / f"worker-{index}.sock") for index in (1, 2)
            ]
            began = time.monotonic()
            text = await first.metrics(b"up 0\n")
            took_s = time.monotonic() - began
            assert text == b'up{worker="0"} 0\n' + UP % (1, 0, 0)
            for server in servers:
                server.close()
            return took_s

    assert 0.9 < asyncio.run(run()) < 1.6


def test_a_caller_that_says_nothing_or_nonsense_is_let_go(folder: Path) -> None:
    async def run() -> None:
        async with started(folder, 2, 0, 1) as (first, _):
            silent, held = await asyncio.open_unix_connection(folder / "worker-1.sock")
            for question in (b"passwords\n", b"x" * 200_000 + b"\n", b""):
                reader, writer = await asyncio.open_unix_connection(folder / "worker-1.sock")
                writer.write(question)
                writer.write_eof()
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
            async with asyncio.timeout(3):
                assert await silent.read() == b""
            held.close()
            assert (await first.states())[1]["pid"] == 101

    asyncio.run(run())


def test_the_folder_is_its_owners_alone_and_not_too_deep(tmp_path: Path) -> None:
    near = make_folder(Path("/tmp") / f"sg-{os.getpid()}")  # noqa: S108
    far = make_folder(tmp_path / ("deep" * 30))
    assert near.parent.name == "run"
    assert str(far.parent) == "/tmp"  # noqa: S108
    for folder in (near, far):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(os.fsencode(folder / "worker-12345.sock")) <= 107
        folder.rmdir()
    near.parent.rmdir()
    near.parent.parent.rmdir()
