"""``POST /v1/signals``: what a signal needs to reach its bot, once, and what its sender is told otherwise."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from ansible_collections.hummingfleet.core.plugins.module_utils import tables
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry, UnknownTenantError
from flask import Flask

from tests import factories
from webhook import work
from webhook.app import SIGNAL_DESK, create_app
from webhook.installation import Installation
from webhook.secrets_file import SecretsFile
from webhook.signal_bus import Ack, BusError, Late, NobodyListensError, NoBrokerError
from webhook.signal_desk import BusyError, Places
from webhook.signal_tokens import SignalTokens
from webhook.signing import sign

ACCEPTED = Ack(True, "accepted", "the bot has taken the signal")


class FakeBus:
    """Bots that answer as told, and what they were told; ``problem`` is raised before anything is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.checked: list[str] = []
        self.answer: Ack | Exception | None = ACCEPTED
        self.problem: Exception | None = None
        self.before: Callable[[], None] = lambda: None
        self.meanwhile: Callable[[], None] = lambda: None
        self.late: Late = lambda _instance, _id, _ack: None

    def listen(self, late: Late) -> None:
        self.late = late

    def check(self, node: str) -> None:
        self.checked.append(node)
        self.before()
        if self.problem is not None:
            raise self.problem

    def send(self, node: str, instance: str, message: Mapping[str, Any], seconds: float) -> Ack | None:
        self.sent.append((node, instance, dict(message)))
        self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def web_registry_url(registry_url: str) -> str:
    """Every test runs on SQLite and on PostgreSQL."""
    return registry_url


@pytest.fixture
def web_settings() -> dict[str, Any]:
    """Limits that are in nobody's way; those who test them have their own."""
    return {"failures_per_minute": 1_000_000, "signals_per_minute": 10_000, "signal_burst": 1000}


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


@pytest.fixture
def app(web_installation: Installation, clock: Any, bus: FakeBus) -> Flask:
    return create_app(web_installation, clock=clock, steady=clock, bus=bus)


def signal_tenant(tenant: str = "acme", **bot: Any) -> dict[str, Any]:
    """``tenant.created`` with a running bot ``s1`` that takes signals, and a grid bot ``g1``."""
    document = factories.document(
        tenant=tenant,
        exchange_connections=[factories.connection(seed=tenant)],
        bots=[factories.signal_bot(state="running", **bot), factories.grid_bot(id="g1", name="grid")],
    )
    return {"type": "tenant.created", "timestamp": "2026-11-23T05:00:00Z", "data": document}


@pytest.fixture
def another(app: Flask, client: Any) -> Callable[[], Any]:
    """Makes clients for other threads."""

    def make() -> Any:
        made: Any = app.test_client()
        made.contract = client.contract
        return made

    return make


class Sender:
    """Sends signals of one bot, as TradingView does."""

    def __init__(self, portal: Any, clock: Any, made: Mapping[str, Any]) -> None:
        self.client, self.clock, self.made = portal.client, clock, made

    def body(self, **fields: Any) -> dict[str, Any]:
        sent = datetime.fromtimestamp(self.clock.now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        whole = {
            "bot": self.made["bot"],
            "token": self.made["token"],
            "id": "one",
            "action": "buy",
            "size_quote": 100,
            "sent_at": sent,
            **fields,
        }
        return {name: value for name, value in whole.items() if value is not ...}

    def post(self, raw: bytes, content_type: str = "text/plain; charset=utf-8", **headers: str) -> Any:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/v1/signals", data=raw, content_type=content_type, headers=headers)

    def send(self, **fields: Any) -> Any:
        """The answer to a signal; a field that is ``...`` is left out."""
        return self.post(json.dumps(self.body(**fields)).encode())

    def signed(self, signal_id: str = "one", secret: str = "", **fields: Any) -> Any:
        """The answer to a signal that is signed."""
        raw = json.dumps(self.body(**{"token": ..., "id": ..., **fields})).encode()
        headers = sign([secret or self.made["signing_secret"]], signal_id, self.clock.now, raw)
        headers["signal-token-id"] = self.made["id"]
        return self.client.post("/v1/signals", data=raw, content_type="application/json", headers=headers)


TOKEN_PATH = "/v1/tenants/{}/bots/{}/signal-token"


def new_token(portal: Any, tenant: str = "acme", bot: str = "s1", query: str = "") -> dict[str, Any]:
    answer = portal.post(TOKEN_PATH.format(tenant, bot) + query, "portal")
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json
    return made


@pytest.fixture
def sender(portal: Any, clock: Any) -> Sender:
    """Tenant acme's sender."""
    portal.accepted(signal_tenant())
    return Sender(portal, clock, new_token(portal))


def problem_of(answer: Any) -> str:
    """The kind of problem, with its code if it has one."""
    plain = answer.get_json(force=True)
    kind = str(plain["type"]).removeprefix("urn:hummingfleet:problem:")
    return f"{kind} {plain['code']}" if "code" in plain else kind


def change_document(registry: Registry, change: Callable[[dict[str, Any]], None], tenant: str = "acme") -> None:
    """Changes the stored document as any part of Hummingfleet might."""
    own = tables.tenants.c.tenant == tenant
    with registry.transaction(write=True) as connection:
        document = json.loads(connection.execute(sa.select(tables.tenants.c.document).where(own)).scalar_one())
        change(document)
        connection.execute(tables.tenants.update().where(own).values(document=json.dumps(document)))


# --- what is passed on -----------------------------------------------------------------------------------------------


def test_an_accepted_signal_was_passed_on_to_the_tokens_bot_with_its_expiry(
    sender: Sender, bus: FakeBus, clock: Any
) -> None:
    clock.now = float(int(clock.now)) + 0.25
    answer = sender.send()
    assert answer.status_code == 202
    said = {name: answer.json[name] for name in ("tenant", "bot", "id", "action", "outcome", "accepted", "duplicate")}
    assert said == {
        "tenant": "acme",
        "bot": "s1",
        "id": "one",
        "action": "buy",
        "outcome": "accepted",
        "accepted": True,
        "duplicate": False,
    }
    ((node, instance, message),) = bus.sent
    assert (node, instance) == ("local", "acme.s1")
    assert message == {
        "id": "one",
        "action": "buy",
        "size_quote": "100",
        "sent_at": clock.now - 0.25,
        "expires_at": pytest.approx(clock.now + 3, rel=0, abs=0.01),  # two seconds for the answer, one to spare
    }


def test_a_signal_expires_at_its_age_if_that_is_sooner(sender: Sender, bus: FakeBus, clock: Any) -> None:
    assert sender.send(sent_at=clock.now - 29).status_code == 202
    assert bus.sent[0][2]["expires_at"] == pytest.approx(clock.now + 1, rel=0, abs=0.01)


def test_what_tradingview_sends_is_accepted_and_no_other_media_type(sender: Sender, bus: FakeBus) -> None:
    raw = json.dumps(sender.body()).encode()
    for media in ("application/x-www-form-urlencoded", "text/html", "text/plain; charset=utf-16", ""):
        assert sender.post(raw, media).status_code == 415, media
    assert not bus.sent
    for number, media in enumerate(["text/plain", "text/plain; charset=utf-8", "application/json; charset=utf-8"]):
        assert sender.post(json.dumps(sender.body(id=f"n{number}")).encode(), media).status_code == 202, media


def test_amounts_reach_the_bot_as_they_were_written(sender: Sender, bus: FakeBus) -> None:
    sizes = {
        "100": "100",
        "0.1": "0.1",
        "1e3": "1000",
        "0.00000001": "0.00000001",
        "1E-7": "0.0000001",
        "12.50": "12.5",
    }
    for number, text in enumerate(sizes):
        raw = json.dumps(sender.body(id=f"n{number}", size_quote="SIZE")).replace('"SIZE"', text)
        assert sender.post(raw.encode()).status_code == 202, text
    assert [message["size_quote"] for _node, _instance, message in bus.sent] == list(sizes.values())


def test_the_size_may_be_left_out(sender: Sender, bus: FakeBus) -> None:
    for fields in ({"size_quote": ...}, {"size_quote": None}, {"action": "close", "size_quote": ...}):
        assert sender.send(id=str(fields), **fields).status_code == 202
        assert bus.sent[-1][2]["size_quote"] is None


# --- once ------------------------------------------------------------------------------------------------------------


def test_a_replayed_id_is_answered_with_the_earlier_outcome_and_not_passed_on(
    sender: Sender, bus: FakeBus, clock: Any
) -> None:
    body = sender.body()
    first = sender.post(json.dumps(body).encode()).json
    clock.now += 3600  # by now it is stale, and its sender asks what became of it
    again = sender.post(json.dumps(body).encode(), "application/json")
    assert again.status_code == 200
    assert again.json == {**first, "duplicate": True}
    assert len(bus.sent) == 1


def test_a_refusal_of_the_bot_is_an_outcome_as_well(sender: Sender, bus: FakeBus) -> None:
    bus.answer = Ack(False, "too_large", "above max_order")
    assert problem_of(sender.send()) == "signal-refused too_large"
    bus.answer = ACCEPTED
    again = sender.send()
    assert (again.status_code, again.json["accepted"], again.json["outcome"]) == (200, False, "too_large")
    assert len(bus.sent) == 1


def test_an_id_cannot_be_used_for_another_signal(sender: Sender, bus: FakeBus, clock: Any) -> None:
    assert sender.send().status_code == 202
    for change in ({"action": "sell"}, {"size_quote": 101}, {"size_quote": ...}, {"sent_at": clock.now - 5}):
        assert problem_of(sender.send(**change)) == "signal-conflict"
    assert len(bus.sent) == 1


def test_the_same_signal_written_otherwise_is_the_same(sender: Sender, bus: FakeBus, portal: Any) -> None:
    sender.send()
    raw = json.dumps(dict(reversed(sender.body(token=new_token(portal)["token"], size_quote=100.0).items())), indent=1)
    assert sender.post(raw.encode()).json["duplicate"] is True
    assert len(bus.sent) == 1


def test_ids_are_each_bots_own(sender: Sender, portal: Any, bus: FakeBus, clock: Any) -> None:
    portal.accepted(signal_tenant("other"))
    assert sender.send().status_code == 202
    assert Sender(portal, clock, new_token(portal, "other")).send().status_code == 202
    assert [instance for _node, instance, _message in bus.sent] == ["acme.s1", "other.s1"]


def test_an_id_that_comes_twice_at_the_same_time_is_passed_on_once(another: Any, sender: Sender, bus: FakeBus) -> None:
    raw, answers = json.dumps(sender.body()).encode(), []

    def send_again() -> None:
        answers.append(another().post("/v1/signals", data=raw, content_type="text/plain"))

    bus.meanwhile = send_again  # while the first one waits for its bot
    first = sender.post(raw)
    assert (first.status_code, answers[0].status_code) == (202, 200)
    assert (answers[0].json["outcome"], answers[0].json["accepted"]) == ("waiting", None)
    assert len(bus.sent) == 1


def test_one_that_overtakes_another_with_its_id_is_passed_on_alone(another: Any, sender: Sender, bus: FakeBus) -> None:
    raw, answers = json.dumps(sender.body()).encode(), []

    def overtake() -> None:
        bus.before = lambda: None
        answers.append(another().post("/v1/signals", data=raw, content_type="text/plain"))

    bus.before = overtake  # when the first one is known to be new, and before it is written down
    first = sender.post(raw)
    assert (first.status_code, answers[0].status_code) == (200, 202)
    assert first.json == {**answers[0].json, "duplicate": True}
    assert len(bus.sent) == 1


def test_many_at_once_with_one_id_are_passed_on_once(another: Any, sender: Sender, bus: FakeBus) -> None:
    raw, start, answers = json.dumps(sender.body()).encode(), threading.Barrier(6), []

    def send() -> None:
        client = another()
        start.wait()
        answers.append(client.post("/v1/signals", data=raw, content_type="text/plain").status_code)

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bus.sent) == 1
    assert answers.count(202) == 1
    assert set(answers) <= {200, 202, 503}  # busy: two of one bot may wait at a time


# --- who may send ----------------------------------------------------------------------------------------------------


def test_without_a_good_token_nothing_is_passed_on(sender: Sender, bus: FakeBus) -> None:
    made_up = "000000000000_" + "A" * 43
    for token in (..., None, 7, "", f"hfs_{made_up}", f"hft_{made_up}", "\ud800", {"a": 1}):
        answer = sender.send(token=token)
        assert (answer.status_code, problem_of(answer)) == (401, "token"), token
    assert not bus.sent


def test_a_token_that_is_nearly_right_is_refused(sender: Sender, bus: FakeBus) -> None:
    good = sender.made["token"]
    for bad in (good[:-1] + ("A" if good[-1] != "A" else "B"), good + "A", good.upper(), good[:17], " " + good):
        assert sender.send(token=bad).status_code == 401
    assert not bus.sent


def test_another_tenants_token_signals_only_that_tenants_bot(
    sender: Sender, portal: Any, bus: FakeBus, clock: Any
) -> None:
    portal.accepted(signal_tenant("other", id="s2"))
    other = Sender(portal, clock, new_token(portal, "other", "s2"))
    answer = other.send(bot="s1")
    assert (answer.status_code, problem_of(answer)) == (422, "signal-invalid")
    assert [fault["pointer"] for fault in answer.get_json(force=True)["faults"]] == ["/bot"]
    assert not bus.sent
    assert other.send().status_code == 202
    assert bus.sent[0][1] == "other.s2"


def test_a_token_of_the_status_api_is_no_signal_token_and_the_reverse(sender: Sender, portal: Any) -> None:
    assert sender.send(token=portal.tokens.create("operator")[1]).status_code == 401
    bearer = {"Authorization": f"Bearer {sender.made['token']}"}
    assert portal.client.get("/v1/tenants", headers=bearer).status_code == 401


def test_a_new_token_replaces_the_old_one_after_the_overlap(sender: Sender, portal: Any, clock: Any) -> None:
    newer = Sender(portal, clock, new_token(portal, query="?overlap_seconds=3600"))
    assert (sender.made["generation"], newer.made["generation"]) == (1, 2)
    assert sender.send(id="a").status_code == newer.send(id="b").status_code == 202
    clock.now += 3601
    assert sender.send(id="c").status_code == 401
    assert newer.send(id="d").status_code == 202


def test_an_overlap_of_nothing_ends_the_old_token_at_once(sender: Sender, portal: Any, bus: FakeBus) -> None:
    new_token(portal, query="?overlap_seconds=0")
    assert sender.send().status_code == 401
    assert not bus.sent


def test_a_revoked_token_is_worth_nothing(
    sender: Sender, web_installation: Installation, clock: Any, bus: FakeBus
) -> None:
    SignalTokens(web_installation.registry, clock).revoke(sender.made["id"])
    assert sender.send().status_code == 401
    assert sender.signed().status_code == 401
    assert not bus.sent


def test_a_forgotten_tenants_token_is_not_its_successors(
    sender: Sender, portal: Any, web_registry: Registry, finish: Any, event: Any
) -> None:
    finish("acme")
    portal.accepted(event("tenant.terminated"))
    finish("acme")
    web_registry.forget("acme")
    portal.accepted(signal_tenant())
    assert sender.send().status_code == 401


def test_the_portal_lists_tokens_without_their_texts(sender: Sender, portal: Any, web_registry: Registry) -> None:
    newer = new_token(portal, query="?overlap_seconds=60")
    answer = portal.get(TOKEN_PATH.format("acme", "s1"), "read-only", "acme")
    assert [(one["id"], one["state"]) for one in answer.json["items"]] == [
        (newer["id"], "valid"),
        (sender.made["id"], "valid"),
    ]
    with web_registry.transaction() as connection:
        stored = str(connection.execute(sa.select(tables.signal_tokens)).all())
    for made in (newer, sender.made):
        for secret in (made["token"], made["token"].split("_", 2)[2], made["signing_secret"]):
            assert secret not in answer.text
            assert secret not in stored


def test_tokens_are_made_for_bots_that_take_signals_and_by_who_may(sender: Sender, portal: Any) -> None:
    assert portal.post(TOKEN_PATH.format("acme", "s1"), "read-only").status_code == 403
    assert portal.post(TOKEN_PATH.format("acme", "s1"), "portal", "other").status_code == 404
    assert portal.get(TOKEN_PATH.format("acme", "s1"), "portal", "other").status_code == 404
    assert portal.post(TOKEN_PATH.format("acme", "nobody"), "portal").status_code == 404
    assert portal.post(TOKEN_PATH.format("acme", "s1") + "?overlap_seconds=-1", "portal").status_code == 400
    # In a body it would be overlooked, and a token that has leaked would stay good.
    body = portal.client.post(
        TOKEN_PATH.format("acme", "s1"), headers=portal.bearer("portal"), json={"overlap_seconds": 0}
    )
    assert body.status_code == 400 and "belongs into the address" in body.text
    assert problem_of(portal.post(TOKEN_PATH.format("acme", "g1"), "portal")) == "signal-refused no_signals"


# --- signed signals --------------------------------------------------------------------------------------------------


def test_who_signs_needs_no_token_in_the_body(sender: Sender, bus: FakeBus) -> None:
    answer = sender.signed("msg-7")
    assert (answer.status_code, answer.json["id"]) == (202, "msg-7")
    assert sender.signed("msg-8", id="msg-8").status_code == 202
    assert [message["id"] for _node, _instance, message in bus.sent] == ["msg-7", "msg-8"]


def test_a_signature_that_does_not_fit_is_refused(sender: Sender, portal: Any, bus: FakeBus, clock: Any) -> None:
    newer = new_token(portal)
    assert newer["signing_secret"] != sender.made["signing_secret"]
    assert problem_of(sender.signed(secret=newer["signing_secret"])) == "signature"
    raw = json.dumps(sender.body(token=..., id=...)).encode()
    good = {**sign([sender.made["signing_secret"]], "one", clock.now, raw), "signal-token-id": sender.made["id"]}
    for change in (
        {"signal-token-id": newer["id"]},
        {"signal-token-id": "x" * 300},
        {"webhook-id": "two"},
        {"webhook-timestamp": str(int(clock.now) - 301)},
        {"webhook-signature": ""},
        {"webhook-signature": "v1," + "A" * 43 + "="},
    ):
        answer = sender.client.post(
            "/v1/signals", data=raw, content_type="application/json", headers={**good, **change}
        )
        assert answer.status_code == 401, change
    tampered = sender.client.post("/v1/signals", data=raw + b" ", content_type="application/json", headers=good)
    assert tampered.status_code == 401
    assert not bus.sent


def test_a_signed_body_holds_no_token_and_no_other_id(sender: Sender, bus: FakeBus) -> None:
    for fields, where in (({"token": sender.made["token"]}, "/token"), ({"id": "other"}, "/id")):
        answer = sender.signed(**fields)
        assert problem_of(answer) == "signal-invalid"
        assert [fault["pointer"] for fault in answer.get_json(force=True)["faults"]] == [where]
    assert not bus.sent


def test_signing_secrets_follow_the_rotation_of_what_they_are_derived_from(
    sender: Sender, portal: Any, web_installation: Installation, clock: Any
) -> None:
    file = SecretsFile(web_installation.fleet.webhook.secrets_path)
    file.rotate("signals", 3600, clock.now)
    newer = Sender(portal, clock, new_token(portal))
    assert sender.signed("a").status_code == newer.signed("b").status_code == 202
    clock.now += 3601
    assert sender.signed("c").status_code == 401
    assert newer.signed("d").status_code == 202


def test_a_secrets_file_of_before_signals_has_no_signing_secrets(
    sender: Sender, portal: Any, web_installation: Installation
) -> None:
    path = web_installation.fleet.webhook.secrets_path
    path.write_text(path.read_text().partition("signals:")[0])
    assert new_token(portal)["signing_secret"] is None
    assert sender.signed().status_code == 401
    assert sender.send().status_code == 202


# --- what is refused -------------------------------------------------------------------------------------------------

WRONG: dict[str, dict[str, Any]] = {
    "another bot": {"bot": "g1"},
    "no bot": {"bot": ...},
    "an empty id": {"id": ""},
    "a long id": {"id": "x" * 129},
    "an id with a line break": {"id": "a\nb"},
    "an id with half a character": {"id": "\ud800"},
    "a number as id": {"id": 7},
    "no id": {"id": ...},
    "an unknown action": {"action": "hold"},
    "an action in capitals": {"action": "BUY"},
    "no action": {"action": ...},
    "a list as action": {"action": ["buy"]},
    "a size of nothing": {"size_quote": 0},
    "a size below nothing": {"size_quote": -1},
    "a huge size": {"size_quote": 10**13},
    "a size beyond floats": {"size_quote": 10**400},
    "a text as size": {"size_quote": "100"},
    "true as size": {"size_quote": True},
    "too many decimals": {"size_quote": 0.123456789},
    "a size for close": {"action": "close"},
    "no time": {"sent_at": ...},
    "null as time": {"sent_at": None},
    "a time without zone": {"sent_at": "2026-11-23T05:00:00"},
    "a date": {"sent_at": "2026-11-23"},
    "milliseconds": {"sent_at": 1795413600000},
    "a time beyond floats": {"sent_at": 10**400},
    "a time below nothing": {"sent_at": -5},
    "an unknown key": {"leverage": 10},
}


def test_every_fault_is_named_with_its_place(sender: Sender, bus: FakeBus) -> None:
    for name, fields in WRONG.items():
        answer = sender.send(**fields)
        assert (answer.status_code, problem_of(answer)) == (422, "signal-invalid"), name
        (fault,) = answer.get_json(force=True)["faults"]
        where = {"a size for close": "/size_quote", "an unknown key": ""}.get(name, f"/{next(iter(fields))}")
        assert fault["pointer"] == where, name
    assert not bus.sent


def test_what_is_no_strict_json_is_refused(sender: Sender, bus: FakeBus) -> None:
    digits = b'{"a": ' + b"9" * 5000 + b"}"
    for raw in (b"", b"{", b"[]", b"7", b"\xff", b'{"a": 1, "a": 1}', b"[" * 4000, digits):
        assert problem_of(sender.post(raw)) == "signal-invalid", raw
    for field, text in itertools.product(("size_quote", "sent_at"), ("NaN", "Infinity", "-Infinity", "1e999")):
        body = json.dumps(sender.body(**{field: "HERE"})).replace('"HERE"', text)
        assert problem_of(sender.post(body.encode())) == "signal-invalid", (field, text)
    assert not bus.sent


def test_a_large_body_is_refused(sender: Sender, bus: FakeBus) -> None:
    raw = json.dumps(sender.body()).encode()
    assert sender.post(raw + b" " * (8192 - len(raw))).status_code == 202
    assert sender.post(raw + b" " * (8193 - len(raw))).status_code == 413
    assert len(bus.sent) == 1


def test_signals_of_another_time_are_refused(sender: Sender, bus: FakeBus, clock: Any) -> None:
    for age in (30.5, 86_400, -10.5):
        answer = sender.send(sent_at=clock.now - age)
        assert (answer.status_code, problem_of(answer)) == (422, "signal-stale"), age
    assert not bus.sent
    for age in (30, -10):
        assert sender.send(id=str(age), sent_at=clock.now - age).status_code == 202, age


def test_a_bot_says_itself_how_old_signals_may_be(
    sender: Sender, bus: FakeBus, clock: Any, web_registry: Registry
) -> None:
    change_document(web_registry, lambda d: d["bots"][0]["strategy_config"].update(max_signal_age_s=5))
    assert sender.send(sent_at=clock.now - 6).status_code == 422
    assert sender.send(sent_at=clock.now - 4).status_code == 202


OBSTACLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bot_stopped": lambda document: document["bots"][0].update(state="stopped"),
    "bot_liquidated": lambda document: document["bots"][0].update(state="liquidated"),
    "tenant_suspended": lambda document: document.update(state="suspended"),
    "risk_halt": lambda document: document.update(risk_halt={"limit": "max_daily_loss"}),
    "no_signals": lambda document: document["bots"][0].update(strategy_template="grid"),
    "no_bot": lambda document: document["bots"].pop(0),
}


def test_a_bot_that_cannot_trade_is_not_told(sender: Sender, bus: FakeBus, web_registry: Registry) -> None:
    as_it_was = web_registry.get("acme").document
    for code, change in OBSTACLES.items():
        change_document(web_registry, change)
        answer = sender.send()
        assert (answer.status_code, problem_of(answer)) == (409, f"signal-refused {code}")
        change_document(web_registry, lambda document: document.update(as_it_was, risk_halt=None))
    assert not bus.sent
    assert sender.send().status_code == 202  # nothing was kept of those that were not passed on


def test_no_token_is_made_for_a_bot_that_is_not_there(portal: Any, clock: Any, web_registry: Registry) -> None:
    """It may be deleted while a token of it is asked for; whoever has the id next would take that token."""
    tokens = SignalTokens(web_registry, clock)
    with pytest.raises(UnknownTenantError):
        tokens.create("acme", "s1")
    portal.accepted(signal_tenant())
    assert tokens.check(tokens.create("acme", "s1").text) is not None
    with pytest.raises(UnknownTenantError):
        tokens.create("acme", "s9")
    assert [token.bot for token in tokens.list("acme")] == ["s1"]


def test_a_halt_that_an_operator_lifted_keeps_no_signal_back(sender: Sender, web_registry: Registry) -> None:
    halt = {"limit": "max_daily_loss_usd", "day": "2026-11-23", "lifted_at": "2026-11-23T05:00:00.000Z"}
    change_document(web_registry, lambda document: document.update(risk_halt=halt))
    assert sender.send().status_code == 202


def test_what_the_bot_refuses_its_sender_hears(sender: Sender, bus: FakeBus) -> None:
    for code in ("halted", "not_connected", "too_large", "expired", "cooldown"):
        bus.answer = Ack(False, code, "because of it")
        answer = sender.send(id=code)
        assert (answer.status_code, problem_of(answer)) == (409, f"signal-refused {code}")
        assert answer.get_json(force=True)["detail"] == "because of it"


def test_a_bot_that_does_not_listen_is_a_refusal(sender: Sender, bus: FakeBus) -> None:
    bus.answer = NobodyListensError("nobody")
    assert problem_of(sender.send()) == "signal-refused not_listening"
    bus.answer = ACCEPTED
    assert sender.send().json["outcome"] == "not_listening"


def test_no_answer_in_time_is_an_unknown_outcome_that_a_late_answer_settles(sender: Sender, bus: FakeBus) -> None:
    bus.answer = None
    first = sender.send()
    assert (first.status_code, problem_of(first)) == (504, "signal-unanswered")
    again = sender.send().json
    assert (again["outcome"], again["accepted"]) == ("unknown", None)
    assert again["expires_at"] in first.get_json(force=True)["detail"]
    bus.late("acme.s1", "one", ACCEPTED)
    assert sender.send().json["outcome"] == "accepted"
    bus.late("acme.s1", "one", Ack(False, "halted", ""))  # the first answer stays
    assert sender.send().json["outcome"] == "accepted"
    assert len(bus.sent) == 1


@pytest.mark.parametrize(
    ("problem", "code"), [(NoBrokerError("at 10.0.0.9"), "no_broker"), (BusError("at 10.0.0.9"), "broker_unreachable")]
)
def test_a_signal_that_did_not_leave_can_be_sent_again(
    problem: Exception, code: str, sender: Sender, bus: FakeBus
) -> None:
    bus.problem = problem
    answer = sender.send()
    assert (answer.status_code, problem_of(answer)) == (503, f"signals-unavailable {code}")
    assert answer.headers["Retry-After"]
    assert "10.0.0.9" not in answer.text
    bus.problem, bus.answer = None, problem  # lost between looking and sending
    assert sender.send().status_code == 503
    bus.answer = ACCEPTED
    assert sender.send().status_code == 202


# --- limits ----------------------------------------------------------------------------------------------------------


class TestDefaults:
    """The limits that hold where the fleet file says nothing."""

    @pytest.fixture
    def web_settings(self) -> dict[str, Any]:
        return {}

    def test_a_bot_may_have_so_many_signals_a_minute_and_no_more(
        self, sender: Sender, bus: FakeBus, clock: Any
    ) -> None:
        assert [sender.send(id=f"n{number}").status_code for number in range(11)] == [202] * 10 + [429]
        answer = sender.send(id="m")
        assert problem_of(answer) == "too-many-signals"
        clock.now += int(answer.headers["Retry-After"])
        assert sender.send(id="m").status_code == 202
        assert len(bus.sent) == 11


class TestStrangers:
    """Those without a good token."""

    @pytest.fixture
    def web_settings(self) -> dict[str, Any]:
        return {"failures_per_minute": 3, "signals_per_minute": 600, "signal_burst": 600}

    def test_they_are_limited_per_address_and_harm_nobody_who_has_one(self, sender: Sender, bus: FakeBus) -> None:
        for status in (401, 401, 401, 429, 429):
            assert sender.send(token="hfs_000000000000_" + "A" * 43).status_code == status
        assert sender.post(b"{").status_code == 429
        assert sender.send().status_code == 202

    def test_they_do_not_use_up_what_events_may_fail(self, sender: Sender, portal: Any, created: Any) -> None:
        for _ in range(5):
            sender.send(token=None)
        assert portal.send(created("third")).status_code == 202


class TestWaiting:
    """Signals that wait for their bots."""

    @pytest.fixture
    def web_settings(self) -> dict[str, Any]:
        return {"threads": 4}

    @pytest.fixture
    def waiting(self, sender: Sender, portal: Any, bus: FakeBus, another: Any, clock: Any) -> Iterator[list[Any]]:
        """Two signals that wait, of two bots; that is all that may."""
        portal.accepted(signal_tenant("other"))
        portal.accepted(signal_tenant("third"))
        others = Sender(portal, clock, new_token(portal, "other"))
        release, begun, answers = threading.Event(), threading.Semaphore(0), []

        def wait() -> None:
            begun.release()
            release.wait()

        bus.meanwhile = wait

        def send(one: Sender) -> None:
            raw = json.dumps(one.body()).encode()
            answers.append(another().post("/v1/signals", data=raw, content_type="text/plain"))

        threads = [threading.Thread(target=send, args=(one,)) for one in (sender, others)]
        for thread in threads:
            thread.start()
        for _ in threads:
            begun.acquire()
        yield [Sender(portal, clock, new_token(portal, "third"))]
        release.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [202, 202]

    def test_more_than_may_wait_are_sent_away(self, waiting: list[Any], bus: FakeBus) -> None:
        answer = waiting[0].send()
        assert (answer.status_code, problem_of(answer)) == (503, "signals-unavailable busy")
        assert answer.headers["Retry-After"] == "1"
        assert len(bus.sent) == 2


class TestSilentBots:
    """Bots of one tenant that answer nothing."""

    @pytest.fixture
    def web_settings(self) -> dict[str, Any]:
        return {"threads": 8}

    def test_they_leave_room_for_the_signals_of_other_tenants(
        self, portal: Any, bus: FakeBus, clock: Any, another: Any, web_registry: Registry
    ) -> None:
        portal.accepted(signal_tenant())
        portal.accepted(signal_tenant("other"))
        change_document(web_registry, lambda d: d["bots"].append({**d["bots"][0], "id": "s2"}))
        silent = [Sender(portal, clock, new_token(portal, bot=bot)) for bot in ("s1", "s2")]
        other = Sender(portal, clock, new_token(portal, "other"))
        release, begun = threading.Event(), threading.Semaphore(0)

        def wait() -> None:
            begun.release()
            release.wait()

        bus.meanwhile = wait

        def send(one: Sender) -> None:
            another().post("/v1/signals", data=json.dumps(one.body()).encode(), content_type="text/plain")

        threads = [threading.Thread(target=send, args=(one,)) for one in silent]
        for thread in threads:
            thread.start()
        for _ in threads:
            begun.acquire()
        bus.meanwhile = lambda: None
        refused, accepted = silent[1].send(id="more"), other.send()
        release.set()
        for thread in threads:
            thread.join()
        assert (problem_of(refused), accepted.status_code) == ("signals-unavailable busy", 202)


def test_one_tenants_signals_leave_room_for_those_of_others() -> None:
    places = Places(4)
    with contextlib.ExitStack() as stack:
        for key in ("a", "a"):
            stack.enter_context(places.taken(key, "b1"))
        with pytest.raises(BusyError), places.taken("a", "b2"):
            pass
        for key in ("b", "c"):
            stack.enter_context(places.taken(key, "b1"))
        with pytest.raises(BusyError), places.taken("d", "b1"):
            pass
    with places.taken("a", "b1"), places.taken("a", "b1"), places.taken("d", "b1"):
        pass


def test_bots_that_do_not_answer_have_one_place_of_four_whoever_they_belong_to() -> None:
    now = 1000.0
    places = Places(4, lambda: now)
    for tenant in ("a", "b"):
        places.note_silence(tenant, "s1")
    with places.taken("a", "s1"):
        with pytest.raises(BusyError), places.taken("b", "s1"):
            pass
        # Others have the rest, those of the same tenants, too.
        with places.taken("a", "s2"), places.taken("c", "s1"), places.taken("d", "s1"):
            pass
    with places.taken("b", "s1"):
        pass
    now += 60
    with places.taken("a", "s1"), places.taken("b", "s1"):
        pass


# --- secrecy, hostility, housekeeping --------------------------------------------------------------------------------


def test_no_token_is_in_any_log_answer_or_number(
    sender: Sender, portal: Any, caplog: pytest.LogCaptureFixture, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG")
    token, other = sender.made["token"], "hfs_0a1b2c3d4e5f_" + "Zq" * 21 + "Z"
    answers = [sender.send(), sender.send(), sender.send(token=other), sender.send(id=7), sender.send(**{token: 1})]
    answers += [sender.send(**{name: token}) for name in ("bot", "id", "action", "size_quote", "sent_at")]
    answers.append(sender.post(json.dumps(sender.body()).encode()[:-1]))
    bus.answer = RuntimeError(f"a mistake with {token} in it")
    monkeypatch.setattr(sender.client.application, "testing", False)
    sender.client.application.config["PROPAGATE_EXCEPTIONS"] = False
    answers.append(sender.send(id="another"))
    assert answers[-1].status_code == 500
    answers += [portal.get("/metrics", "operator"), portal.get("/openapi.json")]
    from webhook.logs import JsonFormatter

    formatter = JsonFormatter("web")
    logged = "\n".join(formatter.format(record) for record in caplog.records)
    assert sender.made["id"] in logged  # the id is what tells which token it was
    for secret in (token, other, token.split("_", 2)[2], other.split("_", 2)[2], sender.made["signing_secret"]):
        assert secret not in logged
        # An id may be anything, and the sender of this one gets to see it again.
        assert not any(secret in answer.text for answer in answers if answer.status_code not in (200, 202))
    assert not any(token in answer.text for answer in answers[-2:])


FUZZED = 10_000


def test_fuzzed_bodies_reach_no_bot_and_break_nothing(sender: Sender, bus: FakeBus, clock: Any) -> None:
    rng = random.Random(20261123)
    statuses: Counter[int] = Counter()
    for _ in range(FUZZED):
        raw = fuzzed(rng, sender.body())
        answer = sender.post(raw, rng.choice(["text/plain", "application/json"]))
        statuses[answer.status_code] += 1
        assert answer.status_code < 500, raw
        clock.now += 0.01  # as many as there may be in a minute
    assert not bus.sent, bus.sent[0]
    assert statuses.keys() <= {401, 413, 422}
    # Both those who are nobody and those who have the token were tried, many times.
    assert min(statuses[401], statuses[422]) > FUZZED / 10


def fuzzed(rng: random.Random, good: dict[str, Any]) -> bytes:
    """A body that is no signal, in one of many ways; often with a good token."""
    texts = [
        "NaN",
        "buy ",
        "BUY",
        "null",
        " ",
        "2026-13-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "{{timenow}}",
        "🙂" * 40,
    ]
    others: list[Any] = [
        *(None, True, False, 0, -1, -0.0, 10**400, 1e308, 1795413600000),
        *("", "\0", "\ud800", "x" * 129, [], {}, [[[]]], {"a": {}}),
    ]
    kind = rng.randrange(6)
    if kind == 0:  # anything at all
        return rng.randbytes(rng.randrange(0, 200))
    if kind == 1:  # a good one, broken
        raw = bytearray(json.dumps(good).encode())
        at = rng.randrange(len(raw))
        return bytes(raw[:at])
    if kind == 2:  # a good one, with bytes that JSON does not have
        raw = bytearray(json.dumps(good).encode())
        raw.insert(rng.randrange(len(raw)), rng.choice(b"\x00\x01\x1f\x80\xfe\xff"))
        return bytes(raw)
    if kind == 3:  # wrong values
        name = rng.choice(["bot", "id", "action", "size_quote", "sent_at", "token"])
        values = others if name == "id" else [*others, *texts]  # those texts are ids
        good[name] = rng.choice([one for one in values if name != "size_quote" or one is not None])
        return json.dumps(good).encode()
    if kind == 4:  # keys that are missing, unknown or there twice
        raw = json.dumps(good)
        choice = rng.randrange(3)
        if choice == 0:
            del good[rng.choice(["bot", "id", "action", "sent_at", "token"])]
            return json.dumps(good).encode()
        if choice == 1:
            return json.dumps(
                {**good, rng.choice(["leverage", "Token", "", "__proto__", "a" * 500]): rng.choice([1, "x"])}
            ).encode()
        return (raw[:-1] + f', "{rng.choice(list(good))}": 1}}').encode()
    deep = rng.randrange(1, 4000)  # depth and length
    return rng.choice(
        [b"[" * deep, b'{"a":' * deep, b'{"token": "' + b"x" * deep + b'"}', b'{"id": ' + b"9" * deep + b"}"]
    )


def test_old_signals_and_ended_tokens_are_deleted(
    sender: Sender, portal: Any, web_registry: Registry, clock: Any
) -> None:
    sender.send()
    new_token(portal, query="?overlap_seconds=0")

    def left() -> tuple[int, int]:
        with web_registry.transaction() as connection:
            counts = [
                connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
                for table in (tables.signals, tables.signal_tokens)
            ]
        return counts[0], counts[1]

    queue = work.WorkQueue(web_registry, "somebody")
    queue.prune(3600)
    assert left() == (1, 2)
    with web_registry.transaction(write=True) as connection:
        connection.execute(tables.signals.update().values(received_at="2026-01-01T00:00:00.000Z"))
        ended = tables.signal_tokens.c.expires_at.is_not(None)
        connection.execute(tables.signal_tokens.update().where(ended).values(expires_at="2026-01-01T00:00:00.000Z"))
    queue.prune(3600)
    assert left() == (0, 1)


def test_without_a_broker_the_answer_says_so(web_installation: Installation, sender: Sender, clock: Any) -> None:
    client = create_app(web_installation, clock=clock, steady=clock).test_client()
    answer = client.post("/v1/signals", json=sender.body())
    assert (answer.status_code, problem_of(answer)) == (503, "signals-unavailable no_broker")
    assert "no broker" in answer.get_json(force=True)["detail"]


def test_the_nodes_with_bots_for_signals_are_connected_beforehand(app: Flask, sender: Sender, bus: FakeBus) -> None:
    """``sender`` is a bot's; a node that cannot be reached keeps nobody from anything."""
    bus.problem = BusError("down")
    app.extensions[SIGNAL_DESK].connect()
    assert bus.checked == ["local"] and bus.sent == []
