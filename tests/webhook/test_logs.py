"""Logs: JSON by the line, with the event and tenant they belong to, without secrets and control characters."""

from __future__ import annotations

import base64
import contextvars
import io
import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook import logs
from webhook.signing import generate_secret, sign


@pytest.fixture(autouse=True)
def nothing_bound() -> None:
    """What other tests' requests were about is over."""
    logs.bind()


def line(message: str, *arguments: Any, **fields: Any) -> dict[str, Any]:
    """What a logging call writes, read back."""
    record = logging.LogRecord("webhook.test", logging.INFO, "x.py", 1, message, arguments, None)
    record.fields = fields
    text = logs.JsonFormatter("web").format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def test_a_line_says_when_who_and_what() -> None:
    found = line("hello %s", "world", status=202, ms=1.5, token=None)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "process": "web",
        "logger": "webhook.test",
        "message": "hello world",
        "status": 202,
        "ms": 1.5,
    }


def test_a_line_names_the_event_and_tenant_that_are_bound() -> None:
    def inside() -> None:
        logs.bind(event="msg_1", tenant="acme")
        assert (line("x")["event"], line("x")["tenant"]) == ("msg_1", "acme")
        logs.bind()
        assert not {"event", "tenant"} & line("x").keys()
        logs.bind(event="msg_2")

    contextvars.Context().run(inside)
    assert "event" not in line("x")


SECRET = generate_secret()
TOKEN = "hft_0123456789ab_" + "s3cr3t-token_" * 3
HIDDEN = {
    "a bearer token": (f"Authorization: Bearer {TOKEN}", TOKEN),
    "a token by itself": (f"token {TOKEN}", "s3cr3t"),
    "a webhook secret": (f"secret {SECRET} is bad", SECRET.removeprefix("whsec_")),
    "a signature": ("signed " + sign([SECRET], "msg_1", 1_700_000_000, b"{}")["webhook-signature"], None),
    "a database's password": ("postgresql://fleet:hunter22@db/fleet is busy", "hunter22"),
    "a ciphertext": ('{"encrypted_api_key": "QUJDREVGR0hJSktMTU4="}', "QUJDREVG"),
    "a nonce": ("nonce_key=QUJDREVGR0hJ", "QUJDREVG"),
    "a salt": ("'salt': 'QUJDREVGR0hJ'", "QUJDREVG"),
    "a password": ("password=correct-horse", "correct-horse"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_has_the_form_of_a_secret_is_hidden_wherever_it_stands(name: str) -> None:
    text, secret = HIDDEN[name]
    secret = secret or text.rpartition(",")[2]
    for found in (line(text), line("%s", text), line("x", detail=text)):
        assert secret not in json.dumps(found)
        assert "[hidden]" in json.dumps(found)


def test_plain_text_is_left_as_it_is() -> None:
    for text in (
        "tenant acme is being worked on by process 17 on host since 2026-11-23T05:00:00Z",
        "http://127.0.0.1:8642/v1/events/msg_1",
        "the header webhook-signature must hold 1 to 16 signatures",
    ):
        assert line(text)["message"] == text


def test_a_traceback_is_part_of_its_line_and_holds_no_secret() -> None:
    try:
        raise ValueError(f"could not use Bearer {TOKEN}\x1b[31m")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed", (), sys.exc_info())
    found = json.loads(logs.JsonFormatter("web").format(record))
    assert found["error"] == "ValueError"
    assert "Traceback" in found["traceback"][0]
    assert "s3cr3t" not in json.dumps(found)
    assert "\x1b" not in "".join(found["traceback"])


@given(st.text(max_size=200))
def test_text_of_strangers_cannot_break_a_line_or_steer_a_terminal(text: str) -> None:
    found = line("%s", text, detail=text)
    for value in (found["message"], found["detail"]):
        assert value.isprintable() or all(
            character.isprintable() or character == "\xa0" or ord(character) > 127 for character in value
        )
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value)


def test_long_text_is_cut() -> None:
    assert len(line("x" * 100_000)["message"]) < 9_000


def test_a_message_that_does_not_fit_its_arguments_ends_nothing() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter("web"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    handler.handle(logging.LogRecord("x", logging.INFO, "x.py", 1, "%d", ("text",), None))


def test_a_process_that_is_configured_logs_json_only() -> None:
    program = """
import logging, threading, warnings
from webhook import logs
logs.configure("worker")
logging.getLogger("anything").info("one", extra=logs.fields(number=1))
warnings.warn("two")
thread = threading.Thread(target=lambda: 1 / 0, name="three")
thread.start(); thread.join()
logging.getLogger("anything").debug("not this")
raise RuntimeError("four")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [json.loads(text) for text in done.stderr.splitlines()]
    assert [one["level"] for one in lines] == ["info", "warning", "error", "critical"]
    assert all(one["process"] == "worker" for one in lines)
    assert lines[0]["number"] == 1
    assert "three" in lines[2]["message"]
    assert lines[2]["error"] == "ZeroDivisionError"
    assert "four" in "".join(lines[3]["traceback"])


def test_a_signature_header_has_the_form_that_is_hidden() -> None:
    encoded = base64.b64encode(b"\x00" * 32).decode()
    assert logs.without_secrets(f"v1,{encoded}") == "v1,[hidden]"


def test_a_request_leaves_one_line_without_body_signature_or_token(
    portal: Any, created: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="webhook.web"):
        body = created()
        answer = portal.send(body, "msg_1", headers={"X-Forwarded-For": "203.0.113.9"})
    assert answer.status_code == 202
    records = [record for record in caplog.records if record.name == "webhook.web"]
    assert len(records) == 1
    fields = records[0].fields  # type: ignore[attr-defined]
    assert fields["ms"] > 0
    assert {k: v for k, v in fields.items() if k != "ms" and v is not None} == {
        "method": "POST",
        "route": "/v1/events",
        "status": 202,
        "client": "127.0.0.1",
    }
    caplog.clear()
    token_id, token = portal.tokens.create("portal")
    with caplog.at_level(logging.INFO, logger="webhook.web"):
        portal.client.get("/v1/events/nothing?limit=1", headers={"Authorization": f"Bearer {token}"})
    (record,) = [record for record in caplog.records if record.name == "webhook.web"]
    assert record.fields["token"] == token_id  # type: ignore[attr-defined]
    assert record.fields["problem"] == "query"  # type: ignore[attr-defined]
    assert token not in json.dumps(record.fields)  # type: ignore[attr-defined]


def test_the_line_of_a_request_names_its_event_and_tenant(portal: Any, created: Any) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter("web"))
    logger = logging.getLogger("webhook.web")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        portal.send(created(), "msg_1")
        portal.client.get("/livez")
        portal.send(b"no JSON", "msg_2")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["tenant"]) == ("msg_1", "acme")
    assert not {"event", "tenant"} & second.keys()
    assert (third["event"], third["problem"], third.get("tenant")) == ("msg_2", "refused", None)
