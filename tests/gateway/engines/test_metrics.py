from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engines.errors import MetricsUnreadable
from gateway.engines.metrics import EngineLoad, Scraper, parse, scrape

TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m \\"x\\", {y}"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0

vllm:num_requests_waiting{engine="0",model_name="m"} 2.0 1795476103774
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:prefix_cache_queries_total{engine="0",} 400.0
vllm:prefix_cache_queries_created{engine="0"} 1.795476103774831e+09
vllm:prefix_cache_hits_total{engine="0"} 1e2
vllm:e2e_request_latency_seconds_bucket{le="+Inf",engine="0"} 7
python_gc_objects_collected_total 5
process_start_time_seconds +Inf
"""
LOAD = EngineLoad(running=7, waiting=2, kv_cache_usage=0.75, prefix_queries=400, prefix_hits=100)


def test_loads_are_summed_over_ranks_and_other_names_passed_over() -> None:
    assert parse(TEXT) == LOAD
    assert parse(TEXT.replace("\n", "\r\n")) == LOAD


def test_names_of_older_versions_are_read() -> None:
    old = TEXT.replace("kv_cache_usage", "gpu_cache_usage").replace("vllm:prefix", "vllm:gpu_prefix")
    assert parse(old) == LOAD


def test_an_engine_without_prefix_cache_has_no_hit_rate() -> None:
    load = parse("\n".join(line for line in TEXT.split("\n") if "prefix" not in line))
    assert (load.prefix_queries, load.prefix_hits, load.hit_rate()) == (0, 0, None)


def test_hits_are_counted_between_two_readings_and_anew_after_a_restart() -> None:
    later = EngineLoad(0, 0, 0.0, 500, 190)
    assert later.hit_rate(LOAD) == 0.9
    assert EngineLoad(0, 0, 0.0, 10, 5).hit_rate(LOAD) == 0.5
    assert LOAD.hit_rate(LOAD) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "lack vllm:num_requests_running"),
        ("up 1\n", "it is no vLLM, or not ready"),
        (TEXT.replace("0.75", "1.75"), "vllm:kv_cache_usage_perc is 1.75, above 1"),
        (TEXT.replace(" 3.0", " NaN"), "line 3 of the engine's metrics: vllm:num_requests_running is NaN"),
        (TEXT.replace(" 3.0", " -3"), "line 3 .* is -3"),
        (TEXT.replace(" 3.0", " +Inf"), r"line 3 .* is \+Inf"),
        (TEXT.replace(" 3.0", " three"), "line 3 of the engine's metrics ends in no number"),
        (TEXT + "<html>", "line 16 of the engine's metrics is no sample"),
        (TEXT + 'a{b="c} 1', "line 16"),
        (TEXT + "a{b} 1", "line 16"),
        (TEXT + "a", "line 16"),
    ],
)
def test_what_is_no_metrics_of_vllm_is_named(text: str, problem: str) -> None:
    with pytest.raises(MetricsUnreadable, match=problem):
        parse(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for whole in (text, TEXT + text):
        try:
            load = parse(whole)
        except MetricsUnreadable:
            continue
        assert load.running >= 0 and 0 <= load.kv_cache_usage <= 1


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def engine(answer: Answer) -> AsyncIterator[str]:
    answers: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.append(asyncio.create_task(serve(reader, writer)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*answers)


def saying(body: bytes, status: str = "200 OK") -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    return answer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def read(answer: Answer, **options: float) -> EngineLoad:
    async with engine(answer) as url, aiohttp.ClientSession() as session:
        return await scrape(session, url, **options)  # type: ignore[arg-type]


def test_an_engine_is_read_over_http() -> None:
    assert asyncio.run(read(saying(TEXT.encode()))) == LOAD


@pytest.mark.parametrize(
    ("answer", "options", "problem"),
    [
        (silent, {"timeout_s": 0.1}, "cannot be read: TimeoutError"),
        (saying(b"", "503 Service Unavailable"), {}, "answers with status 503"),
        (saying(TEXT.encode() * 9), {"most_bytes": 1000}, "is longer than 1000 bytes"),
        (saying(b"\xff\xfe"), {}, "cannot be read: UnicodeDecodeError"),
        (saying(b"", "302 Found\r\nlocation: http://192.0.2.1/"), {}, "answers with status 302"),
    ],
)
def test_an_engine_that_cannot_be_read_is_named(
    answer: Answer, options: dict[str, float], problem: str
) -> None:
    with pytest.raises(MetricsUnreadable, match=problem):
        asyncio.run(read(answer, **options))


def test_a_scraper_knows_who_answers_and_who_does_not() -> None:
    async def scene() -> None:
        async with engine(saying(TEXT.encode())) as well, engine(saying(b"", "500 No")) as ill:
            scraper = Scraper({"well": well, "ill": ill}, every_s=0.01)
            assert (scraper.loads(), scraper.problems()) == ({}, {})
            await scraper.start()
            await scraper.start()
            async with asyncio.timeout(5):
                while not (scraper.loads() and scraper.problems()):  # noqa: ASYNC110 - the sockets make it so
                    await asyncio.sleep(0.01)
            await scraper.stop()
            await scraper.stop()
            assert scraper.loads() == {"well": LOAD}
            assert scraper.problems() == {"ill": f"{ill}/metrics answers with status 500"}

    asyncio.run(scene())


def test_what_was_read_long_ago_says_nothing() -> None:
    async def scene() -> None:
        async with engine(saying(TEXT.encode())) as url:
            scraper = Scraper({"a": url}, every_s=60, fresh_s=0.05)
            await scraper.start()
            async with asyncio.timeout(5):
                while not scraper.loads():  # noqa: ASYNC110 - the socket makes it so
                    await asyncio.sleep(0.005)
                while scraper.loads():  # noqa: ASYNC110 - time makes it so
                    await asyncio.sleep(0.01)
            await scraper.stop()

    asyncio.run(scene())
