"""What was served can be served again when the registry is gone at a start."""

from __future__ import annotations

import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.app import Gateway
from gateway.controlplane.lastgood import LastGood, replace_file
from gateway.settings import GatewaySettings, UpstreamSettings
from registry import accounts, prices, snapshot
from registry.clock import utc_now
from registry.entities import ApiKey, LimitRule, Limits, Price, Snapshot
from registry.workspace import open_workspace
from tests.fakes.server import serving
from tests.fakes.stand import USER, Stand, until
from tests.fakes.upstream import KEY, MODEL, Upstream
from tests.registry.conftest import House, house, workspace

__all__ = ["house", "workspace"]

NOW = datetime(2026, 11, 23, 3, 4, 5, 6, tzinfo=UTC)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
instants = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
numbers = st.integers(1, 10**12)
limits = st.builds(
    Limits, rpm=st.none() | numbers, tpm=st.none() | numbers, concurrency=st.none() | numbers,
    budget_microusd=st.none() | numbers, budget_period=st.sampled_from(["day", "month", "total"]),
)  # fmt: skip
keys = st.builds(
    ApiKey, id=words, name=words, prefix=words, digest=words, models=st.lists(words).map(tuple),
    created_at=instants, expires_at=st.none() | instants, revoked_at=st.none() | instants,
    routes=st.lists(words).map(tuple), team=words, limits=limits, account=words,
)  # fmt: skip
rules = st.builds(
    LimitRule, kind=st.sampled_from(["team", "user", "session", "model"]), subject=words, limits=limits
)
priced = st.builds(
    Price, model=words, effective_from=instants, input_picousd=numbers, output_picousd=numbers,
    cached_input_picousd=st.none() | numbers,
)  # fmt: skip
snapshots = st.builds(
    Snapshot, revision=numbers, releases=st.just(()),
    aliases=st.dictionaries(st.tuples(words, words), words, max_size=3),
    keys=st.lists(keys, max_size=3).map(tuple), broken=st.dictionaries(words, words, max_size=2),
    limits=st.lists(rules, max_size=3).map(tuple), prices=st.lists(priced, max_size=3).map(tuple),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "last-known-good.json"


@given(snapshots, instants)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_is_kept_is_what_is_read(place: Path, kept: Snapshot, when: datetime) -> None:
    LastGood(place).write(kept, when)
    assert LastGood(place).read() == (kept, when)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_file_is_never_served(place: Path, data: st.DataObject) -> None:
    key = ApiKey("key_1", "app", "sk-sg", "ab" * 32, ("*",), NOW)
    LastGood(place).write(Snapshot(7, (), {("support", "production"): "sha256:1"}, (key,)), NOW)
    whole = place.read_bytes()
    place.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert LastGood(place).read() is None
    at = data.draw(st.integers(whole.index(b'"sha256"'), len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    place.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
    assert LastGood(place).read() is None


def test_a_real_snapshot_comes_back_whole(house: House, tmp_path: Path) -> None:
    version = house.release(f"vllm/{MODEL}")
    house.evidence(version)
    house.promote()
    with house.workspace.writing() as connection:
        accounts.create_key(connection, "app", now=utc_now(), limits=Limits(rpm=3))
    with house.workspace.reading() as connection:
        found = snapshot.read(connection)
    assert len(found.releases) == 1
    place = tmp_path / "run" / "last-known-good.json"
    LastGood(place).write(found, NOW)
    assert LastGood(place).read() == (found, NOW)
    assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_another_format_or_nothing_is_not_served(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    LastGood(place).write(Snapshot(7, (), {}, ()), NOW)
    replace_file(place, place.read_bytes().replace(b'"format":1', b'"format":2'))
    assert LastGood(place).read() is None
    assert caplog.messages == [f"{place} is damaged or of another version, so it is not served"]
    assert LastGood(place.with_name("nothing")).read() is None


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "last-known-good.json"
    place.mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(place, b"new")
    assert list(tmp_path.iterdir()) == [place]


def test_keys_and_releases_work_after_a_start_without_the_registry(
    house: House, up: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    there = UpstreamSettings(base_url=up.url, api_key_env="UPSTREAM_KEY")
    chosen = GatewaySettings(refresh_interval_s=0.02, upstreams={"vllm": there})
    version = house.release(f"vllm/{MODEL}")
    house.evidence(version)
    house.promote()
    with house.workspace.writing() as connection:
        budget = Limits(budget_microusd=10**6)
        _, secret = accounts.create_key(connection, "app", now=utc_now(), limits=budget)
        price = Price(f"vllm/{MODEL}", utc_now() - timedelta(days=1), 10, 10)
        prices.set_price(connection, price, actor="ann", now=utc_now())
    with serving(Gateway(chosen, house.workspace)) as url:
        until(lambda: Stand(url, up).post("/health/ready", b"", method="GET")[0] == 200)
    database = house.workspace.settings.home / "registry.db"
    away = database.with_name("away.db")
    house.workspace.engine.dispose()
    database.rename(away)
    caplog.clear()
    with (
        open_workspace(house.workspace.settings, later=True) as blind,
        serving(Gateway(chosen, blind)) as url,
    ):
        stand = Stand(url, up)
        client = openai.OpenAI(base_url=url + "/v1", api_key=secret, max_retries=0, timeout=10)

        def health() -> dict[str, object]:
            status, _, report = stand.post("/health/ready", b"", method="GET")
            return {"status": status, **report["registry"]}

        until(lambda: health()["status"] == 200)
        report = health()
        as_of = datetime.fromisoformat(str(report.pop("as_of")))
        assert timedelta(0) <= utc_now() - as_of < timedelta(minutes=1)
        assert report == {
            "status": 200,
            "reachable": False,
            "reason": f"{database} is gone, though this gateway has served from it; restore it",
            "source": "last-known-good",
        }
        assert _answer(client) == version.digest
        assert not database.exists()
        with urllib.request.urlopen(url + "/metrics", timeout=5) as response:
            assert b"sluicegate_registry_up 0.0" in response.read()
        away.rename(database)
        until(lambda: health()["source"] == "registry")
        assert _answer(client) == version.digest
        client.close()
    assert any("serving the last known good state, of" in message for message in caplog.messages)


def _answer(client: openai.OpenAI) -> str:
    """The digest of the release that answered."""
    made = client.chat.completions.with_raw_response.create(model="support", messages=USER)
    return made.headers["x-sluicegate-digest"]


def test_a_later_snapshot_takes_the_place_of_the_one_before(place: Path) -> None:
    first = Snapshot(1, (), {}, ())
    for number in (1, 2):
        LastGood(place).write(replace(first, revision=number), NOW)
    found = LastGood(place).read()
    assert found is not None
    assert found[0].revision == 2
