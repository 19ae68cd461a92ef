"""The real web process under load and abuse: what was accepted is there once, what was refused changed nothing."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry

from tests import factories, postgresql
from tests.kill.plan import event
from tests.kill.portal import PATH, Answer, Connection, headers
from tests.kill.stage import Stage, stage
from tests.webhook.intake_requests import exchange, fuzzed_requests, request_bytes
from webhook.journal import Journal
from webhook.secrets_file import SecretsFile

FUZZED = 10_000
FUZZ_SEED = 20_261_123


def made(tenant: str, **fields: Any) -> dict[str, Any]:
    """An event that makes a tenant with a market making bot."""
    document = factories.market_making_document(tenant=tenant, bots=[factories.market_making_bot(id="b1")])
    return event("tenant.created", **{**document, **fields})


def amount_of(number: int) -> float:
    """An order amount of its own for each of a few numbers."""
    return round(0.1 + number / 100, 2)


def updated(tenant: str, number: int) -> dict[str, Any]:
    """An event that gives its bot the order amount of that number."""
    changes = {"strategy_config": {"order_amount": amount_of(number)}}
    return event("bot.updated", tenant=tenant, bot_id="b1", changes=changes)


class Live:
    """A running web process, and what is in its registry."""

    def __init__(self, target: Stage) -> None:
        self.target = target
        self.registry = Registry(target.fleet.registry)
        self.journal = Journal(self.registry, target.fleet, load_catalogue(target.fleet.catalogue))

    def post(self, event_id: str, body: dict[str, Any]) -> Answer:
        """The answer to a signed event on a connection of its own."""
        with closing(Connection(self.target.port, self.target.secret)) as connection:
            return connection.post(event_id, json.dumps(body).encode())

    def send(self, *pieces: bytes) -> int | None:
        """The status of the answer to these bytes, None if the connection was closed without one."""
        return exchange(self.target.port, *pieces)


@pytest.fixture(scope="module")
def sqlite_live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with stage(tmp_path_factory.mktemp("sqlite")) as target:
        target.web.start()
        target.web.wait_ready()
        yield Live(target)


@pytest.fixture(scope="module")
def postgresql_live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with postgresql.server() as database, stage(tmp_path_factory.mktemp("postgresql"), database()) as target:
        target.web.start()
        target.web.wait_ready()
        yield Live(target)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.lab)])
def live(request: pytest.FixtureRequest) -> Live:
    found: Live = request.getfixturevalue(f"{request.param}_live")
    return found


def at_once(works: list[Callable[[], Answer]]) -> list[Answer]:
    """The answers to all of them, begun at the same moment."""
    barrier = threading.Barrier(len(works))

    def work(one: Callable[[], Answer]) -> Answer:
        barrier.wait()
        return one()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(work, works))


def test_one_event_delivered_sixteen_times_at_once_is_accepted_once(live: Live) -> None:
    body = made("once")
    answers = at_once([lambda: live.post("once-1", body)] * 16)
    assert Counter(answer.status for answer in answers) == {202: 1, 200: 15}
    assert len({answer.body["event"]["number"] for answer in answers}) == 1
    assert [one.id for one in live.journal.list(tenant="once").items] == ["once-1"]
    assert live.registry.get("once").revision == 1


def test_of_sixteen_bodies_under_one_id_at_once_one_is_accepted(live: Live) -> None:
    assert live.post("same-1", made("same")).status == 202
    works = [lambda number=number: live.post("same-2", updated("same", number)) for number in range(16)]
    answers = at_once(works)
    assert Counter(answer.status for answer in answers) == {202: 1, 409: 15}
    assert live.registry.get("same").revision == 2


def test_tenants_made_at_once_share_nothing(live: Live) -> None:
    works = [lambda number=number: live.post(f"many-{number}", made(f"many{number}")) for number in range(16)]
    assert {answer.status for answer in at_once(works)} == {202}
    documents = [live.registry.get(f"many{number}").document for number in range(16)]
    for name in ("subnet", "uid", "salt"):
        assert len({document[name] for document in documents}) == 16


def test_changes_of_one_tenant_at_once_are_applied_one_after_the_other(live: Live) -> None:
    assert live.post("row-0", made("row")).status == 202
    works = [lambda number=number: live.post(f"row-{number}", updated("row", number))
             for number in range(1, 13)]  # fmt: skip
    assert {answer.status for answer in at_once(works)} == {202}
    events = live.journal.list(tenant="row").items
    assert sorted(one.revision for one in events) == list(range(1, 14))
    assert [one.number for one in events] == sorted((one.number for one in events), reverse=True)
    last = max(events, key=lambda one: one.number)
    amount = live.registry.get("row").document["bots"][0]["strategy_config"]["order_amount"]
    assert amount == amount_of(int(last.id.partition("-")[2]))


def test_a_replay_is_answered_with_the_first_result(sqlite_live: Live) -> None:
    raw = json.dumps(made("replay")).encode()
    request = request_bytes("POST", PATH, headers(sqlite_live.target.secret, "replay-1", raw), raw)
    assert [sqlite_live.send(request) for _ in range(3)] == [202, 200, 200]
    assert sqlite_live.registry.get("replay").revision == 1


@pytest.mark.parametrize("age_seconds", [-3600, -301, 301, 86_400 * 365])
def test_a_stale_or_future_timestamp_is_refused(sqlite_live: Live, age_seconds: int) -> None:
    before = dump(sqlite_live)
    raw = json.dumps(made("stale")).encode()
    signed = headers(sqlite_live.target.secret, "stale-1", raw, timestamp=int(time.time()) - age_seconds)
    assert sqlite_live.send(request_bytes("POST", PATH, signed, raw)) == 401
    assert dump(sqlite_live) == before


def test_another_secret_is_refused(sqlite_live: Live, tmp_path: Path) -> None:
    other = SecretsFile(tmp_path / "secrets.yml")
    other.ensure(time.time())
    before = dump(sqlite_live)
    raw = json.dumps(made("other")).encode()
    for secret in (other.current("inbound").secret, sqlite_live.target.callback_secret):
        signed = headers(secret, "other-1", raw)
        assert sqlite_live.send(request_bytes("POST", PATH, signed, raw)) == 401
    assert dump(sqlite_live) == before


def test_a_body_that_was_changed_on_the_way_is_refused(sqlite_live: Live) -> None:
    before = dump(sqlite_live)
    raw = json.dumps(made("changed")).encode()
    signed = headers(sqlite_live.target.secret, "changed-1", raw)
    for body in (raw + b" ", raw[:-1], raw.replace(b"changed", b"hanged0", 1), b"", b"{}"):
        assert sqlite_live.send(request_bytes("POST", PATH, signed, body)) in (400, 401)
    assert dump(sqlite_live) == before


def test_a_truncated_body_changes_nothing_and_a_slow_one_keeps_nobody_waiting(sqlite_live: Live) -> None:
    raw = json.dumps(made("slow")).encode()
    signed = headers(sqlite_live.target.secret, "slow-1", raw)
    request = request_bytes("POST", PATH, signed, raw)
    before = dump(sqlite_live)
    # Far more of them than the server has threads.
    slow = [socket.create_connection(("127.0.0.1", sqlite_live.target.port)) for _ in range(64)]
    try:
        for index, one in enumerate(slow):
            one.sendall(request[: len(request) - 1 - index])
        assert dump(sqlite_live) == before
        assert sqlite_live.post("quick-1", made("quick")).status == 202
        slow[0].sendall(request[-1:])
        assert slow[0].recv(65536).split(b" ", 2)[1] == b"202"
    finally:
        for one in slow:
            one.close()
    assert [one.id for one in sqlite_live.journal.list(tenant="slow").items] == ["slow-1"]


def test_an_oversized_body_is_refused_however_it_is_announced(sqlite_live: Live) -> None:
    before = dump(sqlite_live)
    limit = sqlite_live.target.fleet.webhook.max_body_bytes
    large = json.dumps(made("large", note="x" * limit)).encode()
    signed = headers(sqlite_live.target.secret, "large-1", large)
    assert sqlite_live.send(request_bytes("POST", PATH, signed, large)) == 413
    chunked = {**signed, "Transfer-Encoding": "chunked"}
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(large[at : at + 8192]), large[at : at + 8192])
                      for at in range(0, len(large), 8192))  # fmt: skip
    head = request_bytes("POST", PATH, chunked, b"", with_length=False)
    assert sqlite_live.send(head, pieces + b"0\r\n\r\n") == 413
    announced = request_bytes("POST", PATH, {**signed, "Content-Length": str(10**15)}, b"", with_length=False)
    assert sqlite_live.send(announced) in (413, 400)
    assert dump(sqlite_live) == before


def test_what_follows_a_body_that_is_longer_than_announced_is_no_event(sqlite_live: Live) -> None:
    before = dump(sqlite_live)
    raw = json.dumps(made("smuggled")).encode()
    inner = request_bytes("POST", PATH, {"Content-Type": "application/json", "webhook-id": "smuggled-1"}, raw)
    outer = request_bytes("POST", PATH, {"Content-Type": "application/json", "Content-Length": "2"}, b"{}" + inner,
                          with_length=False)  # fmt: skip
    assert sqlite_live.send(outer) in (400, 401)
    both = {"Content-Length": "4", "Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    assert sqlite_live.send(request_bytes("POST", PATH, both, b"0\r\n\r\n" + inner, with_length=False)) in (400, 401)
    assert dump(sqlite_live) == before


def test_ten_thousand_hostile_requests_change_nothing_and_find_no_server_error(sqlite_live: Live) -> None:
    assert sqlite_live.post("victim-1", made("victim")).status == 202
    before = dump(sqlite_live)
    statuses: Counter[int | None] = Counter()
    broken: list[tuple[int, bytes]] = []
    lock = threading.Lock()
    requests = fuzzed_requests(FUZZ_SEED, FUZZED, sqlite_live.target.secret)

    def work() -> None:
        while True:
            with lock:
                request = next(requests, None)
            if request is None:
                return
            status = sqlite_live.send(request)
            with lock:
                statuses[status] += 1
                if status is not None and (status >= 500 or status in (200, 202)):
                    broken.append((status, request))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(dict(statuses))
    assert not broken, f"seed {FUZZ_SEED}: {broken[:3]}"
    assert sum(statuses.values()) == FUZZED
    assert {400, 401, 404, 422} <= set(statuses), statuses
    assert dump(sqlite_live) == before
    log = sqlite_live.target.web.output()
    assert "Traceback" not in log
    assert '"level": "error"' not in log
    assert sqlite_live.post("victim-2", updated("victim", 3)).status == 202


def dump(live: Live) -> list[str]:
    """Everything in the registry, as SQL."""
    with closing(sqlite3.connect(f"file:{live.target.folder}/registry.db?mode=ro", uri=True)) as connection:
        return list(connection.iterdump())
