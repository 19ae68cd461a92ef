"""Call-backs to the portal: their order, when they are tried again, and what a portal may do to us."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from ansible_collections.hummingfleet.core.plugins.module_utils.registry import Registry
from hypothesis import given
from hypothesis import strategies as st

from tests.webhook import portal as portals
from tests.webhook.portal import Portal, Request, raw, status
from webhook import callbacks
from webhook.callbacks import CallbackStateError, Deliverer, Outbox, UnknownCallbackError
from webhook.secrets_file import SecretsError, SecretsFile, Signer

NOW = 1_800_000_000.0
DAY = 86_400.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(registry_url: str) -> Registry:
    return Registry(registry_url)


@pytest.fixture
def outbox(registry: Registry, clock: Clock) -> Outbox:
    return Outbox(registry, clock, jitter=lambda: 0.0)


@pytest.fixture
def local_outbox(tmp_path: Path, clock: Clock) -> Outbox:
    """One on SQLite, for tests that are about HTTP."""
    return Outbox(Registry(f"sqlite:///{tmp_path / 'local.db'}"), clock, jitter=lambda: 0.0)


@pytest.fixture
def portal() -> Iterator[Portal]:
    with portals.running() as portal:
        yield portal


@pytest.fixture
def secrets_path(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.yml"
    SecretsFile(path).ensure(NOW)
    return path


@pytest.fixture
def deliverer(local_outbox: Outbox, secrets_path: Path, portal: Portal, clock: Clock) -> Deliverer:
    return Deliverer(local_outbox, Signer(secrets_path, clock), portal.url, clock)


def put(outbox: Outbox, tenant: str, *numbers: int, now: float = NOW) -> list[int]:
    """Writes call-backs whose data holds ``n``; their numbers in the outbox."""
    with outbox._registry.transaction(write=True) as connection:
        ids = [callbacks.enqueue(connection, tenant, "bot.state_changed", {"n": n}, now) for n in numbers]
    found = {one.id: one.number for one in outbox.list(tenant)}
    return [found[one] for one in ids]


def due(outbox: Outbox, now: float = NOW) -> list[tuple[str, int]]:
    return [(one.tenant, json.loads(one.body)["data"]["n"]) for one in outbox.due(now, 100)]


# --- when to try again ----------------------------------------------------------------------------


def test_pauses_grow_threefold_from_5_seconds_to_2_hours() -> None:
    pauses = [callbacks.pause_seconds(attempts, 0.0) for attempts in range(1, 10)]
    assert pauses == [5, 15, 45, 135, 405, 1215, 3645, 7200, 7200]


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_jitter_takes_at_most_a_quarter_off(attempts: int, jitter: float) -> None:
    longest = callbacks.pause_seconds(attempts, 0.0)
    assert longest * 0.75 <= callbacks.pause_seconds(attempts, jitter) <= longest <= 7200


# --- the outbox -----------------------------------------------------------------------------------


def test_an_unfinished_transaction_leaves_no_callback(outbox: Outbox) -> None:
    with pytest.raises(RuntimeError), outbox._registry.transaction(write=True) as connection:
        callbacks.enqueue(connection, "acme", "event.applied", {}, NOW)
        raise RuntimeError
    assert outbox.list() == ()


def test_a_callback_says_what_happened(outbox: Outbox) -> None:
    with outbox._registry.transaction(write=True) as connection:
        made = callbacks.enqueue(connection, "acme", "event.failed", {"event_id": "e1", "reason": "\ud800 \0 ü"}, NOW)
    (found,) = outbox.list()
    assert found.id == made and found.id.startswith("cb_") and found.state == "pending"
    assert json.loads(found.body) == {
        "type": "event.failed",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {"tenant": "acme", "event_id": "e1", "reason": "\ud800 \0 ü"},
    }
    assert outbox.get(found.number) == found
    assert found.plain()["next_attempt_at"] == "2027-01-15T08:00:00.000Z"


def test_the_oldest_of_each_tenant_is_due(outbox: Outbox) -> None:
    put(outbox, "acme", 1, 2, 3)
    put(outbox, "blue", 1)
    assert due(outbox) == [("acme", 1), ("blue", 1)]
    assert len(outbox.due(NOW, 1)) == 1


def test_a_failed_one_holds_up_its_tenant_and_nobody_else(outbox: Outbox) -> None:
    first, _second = put(outbox, "acme", 1, 2)
    put(outbox, "blue", 1)
    outbox.record(first, False, "no", NOW)
    assert due(outbox) == [("blue", 1)]
    assert due(outbox, NOW + 4.9) == [("blue", 1)]
    assert sorted(due(outbox, NOW + 5)) == [("acme", 1), ("blue", 1)]
    outbox.record(first, True, None, NOW + 5)
    assert sorted(due(outbox, NOW + 5)) == [("acme", 2), ("blue", 1)]


def test_one_that_was_given_up_no_longer_holds_up_its_tenant(outbox: Outbox) -> None:
    first, second = put(outbox, "acme", 1, 2)
    now = NOW
    attempts = []
    while outbox.get(first).state == "pending":
        assert due(outbox, now) == [("acme", 1)]
        outbox.record(first, False, "no", now)
        attempts.append(now - NOW)
        now = max(now, outbox.get(first).not_before)
    assert attempts[:4] == [0, 5, 20, 65] and attempts[-1] == DAY and len(attempts) == 20
    gone = outbox.get(first)
    assert (gone.state, gone.attempts, gone.last_error) == ("given_up", 20, "no")
    assert gone.plain()["next_attempt_at"] is None
    assert [one.number for one in outbox.due(now, 10)] == [second]


def test_a_worker_that_slept_a_day_tries_once_more(outbox: Outbox) -> None:
    (number,) = put(outbox, "acme", 1)
    assert due(outbox, NOW + 3 * DAY) == [("acme", 1)]
    outbox.record(number, False, "no", NOW + 3 * DAY)
    assert outbox.get(number).state == "given_up"


def test_a_delivered_one_can_be_sent_again(outbox: Outbox, clock: Clock) -> None:
    first, second = put(outbox, "acme", 1, 2)
    outbox.record(first, True, None, NOW)
    assert outbox.get(first).delivered_at == "2027-01-15T08:00:00.000Z"
    clock.now = NOW + 2 * DAY
    again = outbox.resend(first)
    assert (again.state, again.attempts, again.delivered_at) == ("pending", 0, None)
    assert [one.id for one in outbox.due(clock.now, 10)] == [again.id]
    outbox.record(first, False, "no", clock.now)
    assert outbox.get(first).state == "pending", "it has another day"
    outbox.record(first, True, None, clock.now)
    assert due(outbox, clock.now) == [("acme", 2)]
    assert outbox.get(second).state == "pending"


def test_one_that_waits_for_its_next_attempt_can_be_hurried(outbox: Outbox) -> None:
    (number,) = put(outbox, "acme", 1)
    with pytest.raises(CallbackStateError):
        outbox.resend(number)
    outbox.record(number, False, "no", NOW)
    assert due(outbox) == []
    outbox.resend(number)
    assert due(outbox) == [("acme", 1)]


def test_a_late_record_changes_nothing(outbox: Outbox) -> None:
    (number,) = put(outbox, "acme", 1)
    outbox.record(number, True, None, NOW)
    before = outbox.get(number)
    outbox.record(number, False, "somebody else was slower", NOW + 1)
    assert outbox.get(number) == before


def test_the_list_pages_from_the_newest(outbox: Outbox) -> None:
    numbers = put(outbox, "acme", 1, 2, 3)
    put(outbox, "blue", 1)
    assert [one.number for one in outbox.list("acme", limit=2)] == [numbers[2], numbers[1]]
    assert [one.number for one in outbox.list("acme", after=numbers[1])] == [numbers[0]]
    outbox.record(numbers[0], True, None, NOW)
    assert [one.number for one in outbox.list(state="delivered")] == [numbers[0]]
    assert outbox.list("\0") == ()


@pytest.mark.parametrize("number", [0, -1, 99, 2**31, 2**80])
def test_an_unknown_number_is_a_sentence(outbox: Outbox, number: int) -> None:
    for function in (outbox.get, outbox.resend):
        with pytest.raises(UnknownCallbackError, match="callback list"):
            function(number)


def test_an_error_text_is_bounded_and_harmless(outbox: Outbox) -> None:
    (number,) = put(outbox, "acme", 1)
    outbox.record(number, False, "\x1b[2J\0" + "x" * 5000, NOW)
    error = outbox.get(number).last_error
    assert error is not None and error.isprintable() and len(error) == 300


# --- delivery -------------------------------------------------------------------------------------


def test_messages_arrive_in_order_and_the_reference_library_verifies_them(
    local_outbox: Outbox, secrets_path: Path, portal: Portal
) -> None:
    old = SecretsFile(secrets_path).current("outbound").secret
    new = SecretsFile(secrets_path).rotate("outbound", DAY, datetime.now(UTC).timestamp()).secret
    put(local_outbox, "acme", 1, 2, 3, now=0)
    put(local_outbox, "blue", 1, 2, now=0)
    report = Deliverer(local_outbox, Signer(secrets_path), portal.url).deliver_due()
    assert (report.delivered, report.problems) == (5, ())
    assert (portal.numbers("acme"), portal.numbers("blue")) == ([1, 2, 3], [1, 2])
    ids = {one.id for one in local_outbox.list(state="delivered")}
    assert {request.headers["webhook-id"] for request in portal.requests} == ids and len(ids) == 5
    for request in portal.requests:
        assert (request.path, request.headers["content-type"]) == ("/hooks?fleet=1", "application/json")
        for secret in (old, new):
            standardwebhooks.Webhook(secret).verify(request.body, dict(request.headers))


def test_a_refusing_portal_is_asked_again_in_order(
    local_outbox: Outbox, deliverer: Deliverer, portal: Portal, clock: Clock
) -> None:
    (first, _second) = put(local_outbox, "acme", 1, 2)
    put(local_outbox, "blue", 1)
    portal.answers["acme"] = status(500, b"<h1>\x1b[31mout of order</h1>")
    report = deliverer.deliver_due()
    assert report.delivered == 1 and len(report.problems) == 1
    assert "acme" in report.problems[0] and "500" in report.problems[0]
    assert local_outbox.get(first).last_error == "the portal answered 500: <h1>\\x1b[31mout of order</h1>"
    assert deliverer.deliver_due().delivered == 0
    assert portal.numbers("acme") == [1]
    portal.answers.clear()
    clock.now += 5
    assert deliverer.deliver_due().delivered == 2
    assert portal.numbers("acme") == [1, 1, 2]
    first_try, second_try = (r.headers for r in portal.requests if r.data == {"tenant": "acme", "n": 1})
    assert first_try["webhook-id"] == second_try["webhook-id"]
    assert int(second_try["webhook-timestamp"]) - int(first_try["webhook-timestamp"]) == 5


def test_order_holds_under_failures(local_outbox: Outbox, deliverer: Deliverer, portal: Portal, clock: Clock) -> None:
    accepted: list[int] = []

    def moody(request: Request, handler: http.server.BaseHTTPRequestHandler) -> None:
        good = len(portal.requests) % 3 == 0
        if good:
            accepted.append(request.data["n"])
        status(200 if good else 503)(request, handler)

    portal.answer = moody
    put(local_outbox, "acme", *range(10))
    while local_outbox.list(state="pending"):
        deliverer.deliver_due()
        clock.now += 15
    assert accepted == list(range(10))


def test_a_target_is_written_as_urls_are(
    local_outbox: Outbox, secrets_path: Path, portal: Portal, clock: Clock
) -> None:
    put(local_outbox, "acme", 1)
    url = portal.url.partition("/hooks")[0] + "/hö ok%20s?a=b&c=ü"
    assert Deliverer(local_outbox, Signer(secrets_path, clock), url, clock).deliver_due().delivered == 1
    assert portal.requests[0].path == "/h%C3%B6%20ok%20s?a=b&c=%C3%BC"


def test_a_redirect_is_refused_and_not_followed(local_outbox: Outbox, deliverer: Deliverer, portal: Portal) -> None:
    (number,) = put(local_outbox, "acme", 1)
    portal.answer = status(307, Location=portal.url)
    assert deliverer.deliver_due().delivered == 0
    assert len(portal.requests) == 1
    assert local_outbox.get(number).last_error == "the portal answered 307; redirects are not followed"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage\r\n\r\n",
        b"\x00\xff" * 1000,
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200\xff OK\r\n",
        b"HTTP/1.1 99999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 " + b"2" * 100_000,
        b"HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 500 X\r\nContent-Length: -5\r\n\r\nx",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_garbage_is_a_failed_attempt(local_outbox: Outbox, deliverer: Deliverer, portal: Portal, data: bytes) -> None:
    (number,) = put(local_outbox, "acme", 1)
    portal.answer = raw(data)
    assert deliverer.deliver_due().delivered == 0
    found = local_outbox.get(number)
    assert (found.state, found.attempts) == ("pending", 1)
    assert found.last_error is not None and found.last_error.startswith("the portal")
    assert found.last_error.isprintable()


def test_an_endless_answer_is_not_read(local_outbox: Outbox, deliverer: Deliverer, portal: Portal) -> None:
    def endless(_request: Request, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 400 No\r\n\r\n")
        while True:
            handler.wfile.write(b"x" * 65536)

    (number,) = put(local_outbox, "acme", 1)
    portal.answer = endless
    deliverer.deliver_due()
    assert local_outbox.get(number).last_error == "the portal answered 400: " + "x" * 120


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 500 No\r\n\r\n"])
def test_a_portal_that_never_finishes_is_hung_up_on(
    local_outbox: Outbox, secrets_path: Path, portal: Portal, clock: Clock, head: bytes
) -> None:
    left, finished = threading.Event(), threading.Event()

    def slow(_request: Request, handler: http.server.BaseHTTPRequestHandler) -> None:
        try:
            handler.wfile.write(head)
            for _ in range(1000):  # bytes often enough for every single read to get something in time
                threading.Event().wait(0.02)
                handler.wfile.write(b"x")
            finished.set()
        finally:
            left.set()

    (number,) = put(local_outbox, "acme", 1)
    portal.answer = slow
    Deliverer(local_outbox, Signer(secrets_path, clock), portal.url, clock, timeout_seconds=0.3).deliver_due()
    assert local_outbox.get(number).last_error == "the portal did not answer in time"
    assert left.wait(60) and not finished.is_set(), "the connection was not closed"


def test_a_slow_tenant_does_not_keep_others_from_delivery(
    local_outbox: Outbox, deliverer: Deliverer, portal: Portal
) -> None:
    others = threading.Event()

    def patient(request: Request, handler: http.server.BaseHTTPRequestHandler) -> None:
        assert others.wait(9)
        status(200)(request, handler)

    def quick(request: Request, handler: http.server.BaseHTTPRequestHandler) -> None:
        others.set()
        status(200)(request, handler)

    portal.answers = {"acme": patient, "blue": quick}
    put(local_outbox, "acme", 1)
    put(local_outbox, "blue", 1)
    assert deliverer.deliver_due().delivered == 2


def test_a_portal_that_is_not_there_is_a_failed_attempt(local_outbox: Outbox, secrets_path: Path, clock: Clock) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        (number,) = put(local_outbox, "acme", 1)
        Deliverer(local_outbox, Signer(secrets_path, clock), url, clock).deliver_due()
    assert local_outbox.get(number).last_error == "the portal cannot be reached (Connection refused)"


def test_a_certificate_that_nobody_vouches_for_is_refused(
    local_outbox: Outbox, secrets_path: Path, clock: Clock, tmp_path: Path
) -> None:
    certificate, key = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with portals.running(context) as portal:
        (number,) = put(local_outbox, "acme", 1)
        signer = Signer(secrets_path, clock)
        Deliverer(local_outbox, signer, portal.url, clock).deliver_due()
        assert portal.requests == []
        error = local_outbox.get(number).last_error
        assert error is not None and error.startswith("the portal's certificate is not trusted")
        trusting = ssl.create_default_context(cafile=str(certificate))
        local_outbox.resend(number)
        assert Deliverer(local_outbox, signer, portal.url, clock, context=trusting).deliver_due().delivered == 1


def test_without_a_secret_nothing_is_sent_and_no_attempt_counted(
    local_outbox: Outbox, deliverer: Deliverer, portal: Portal, secrets_path: Path
) -> None:
    (number,) = put(local_outbox, "acme", 1)
    secrets_path.unlink()
    with pytest.raises(SecretsError):
        deliverer.deliver_due()
    assert portal.requests == [] and local_outbox.get(number).attempts == 0


def test_another_worker_goes_on_where_one_died(
    local_outbox: Outbox, deliverer: Deliverer, portal: Portal, secrets_path: Path, clock: Clock, monkeypatch: Any
) -> None:
    put(local_outbox, "acme", 1, 2)

    class Killed(BaseException):
        pass

    def die(*_arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(local_outbox, "record", die)
        with pytest.raises(Killed):
            deliverer.deliver_due()
    other = Deliverer(Outbox(local_outbox._registry, clock), Signer(secrets_path, clock), portal.url, clock)
    assert other.deliver_due().delivered == 2
    assert portal.numbers("acme") == [1, 1, 2]
    assert len({request.headers["webhook-id"] for request in portal.requests}) == 2


def test_a_worker_that_is_asked_to_stop_begins_nothing_new(
    local_outbox: Outbox, deliverer: Deliverer, portal: Portal
) -> None:
    put(local_outbox, "acme", 1, 2)
    assert deliverer.deliver_due(stop=lambda: bool(portal.requests)).delivered == 1
    assert deliverer.deliver_due(budget_seconds=0).delivered == 0
    assert deliverer.deliver_due().delivered == 1


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-made certificate for 127.0.0.1 and its key."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portal")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path
