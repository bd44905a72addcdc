"""The request log: one line for each request, and never a request that waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import threading

from gateway.controlplane.requestlog import RequestLog
from gateway.dataplane.usage import UsageRecord
from tests.fakes.stand import until


def test_each_request_is_one_line_of_json() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as lines, os.fdopen(writer, "w") as stream:
        log = RequestLog(stream)
        log.add(UsageRecord("req_1", release="sup\nport", status=200, cost_microusd=3))
        log.add(UsageRecord("req_2"))
        log.close()
        stream.close()
        noted = [json.loads(line) for line in lines]
    assert [(n["request_id"], n["release"], n["cost_microusd"]) for n in noted] == [
        ("req_1", "sup\nport", 3),
        ("req_2", "", None),
    ]
    assert set(noted[0]) == set(UsageRecord.__struct_fields__)
    assert log.dropped == 0


def test_a_reader_that_does_not_read_costs_lines_and_no_time() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as lines, os.fdopen(writer, "w") as stream:
        log = RequestLog(stream)
        for number in range(12_000):
            log.add(UsageRecord(f"req_{number}"))
        assert 0 < log.dropped < 12_000
        read: list[bytes] = []
        thread = threading.Thread(target=lambda: read.extend(lines))
        thread.start()
        log.close()
        stream.close()
        thread.join(10)
    assert len(read) + log.dropped == 12_000


def test_a_reader_that_left_is_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as stream:
        log = RequestLog(stream)
        log.add(UsageRecord("req_1"))
        until(lambda: log.dropped == 1)
        log.close()
