"""Requests as bytes: well formed ones, and seeded hostile ones of which none may be accepted."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests import factories
from tests.kill.plan import event
from tests.kill.portal import PATH, headers

_TIMEOUT_SECONDS = 20.0

# Texts that were trouble somewhere: encodings, templates, shells, SQL, paths, terminals, numbers.
TEXTS = (
    "", " ", "\0", "\x1b[2J", "\u202e", "\ud800", "a" * 5000, "é" * 300, "😀", "NaN", "-0", "1e999", "0x10", "null",
    "../../etc/passwd", "/dev/null", "{{ lookup('pipe','id') }}", "${jndi:ldap://x}", "$(id)", "`id`",
    "'; DROP TABLE t;--",
    "%00", "%s%n", "<script>", "\r\nX-Header: 1", "all", "localhost", "nodes", "A", "-a", "a-", "a--b", "tenant-acme",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, -(2**63), 2**64, 10**400, float("nan"), float("inf"), [], {}, [[]], [None],
    {"": ""}, {"$ref": "#"}, ["x"] * 50, *TEXTS,
)  # fmt: skip
METHODS = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "post", "P\xd6ST")
PATHS = (
    PATH, PATH + "/", "/v1/events/", "/v1/events/%00", "/v1/events/..%2f..", "/v1/events/" + "a" * 300, "/v1/tenants",
    "/v1/tenants/victim", "/v1/tenants/%ff", "/v1/callbacks", "/v1/events/victim-1", "/v1/events/victim-1/retry",
    "/v1/events/victim-1/discard", "/", "//", "/..", "/openapi.json/x", "*", "http://evil.example/v1/events",
    "/%", "/\xff",
    "/v1/events?state=;&limit=-1&after=%27", "/v1/events?limit=999999999999999999999", "/metrics/..", "/livez%0d%0a",
)  # fmt: skip


def exchange(port: int, *pieces: bytes) -> int | None:
    """Sends the pieces on a connection of their own; the status of the first answer, None if there was none."""
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before all was sent: the answer says why
        data = b""
        try:
            while b"\r\n" not in data and (piece := connection.recv(65536)):
                data += piece
        except ConnectionResetError:
            pass
    words = data.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else None


def request_bytes(
    method: str, path: str, fields: Mapping[str, str], body: bytes = b"", *, with_length: bool = True
) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if with_length:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


def fuzzed_requests(seed: int, count: int, secret: str) -> Iterator[bytes]:
    """So many requests, the same ones for the same seed except for the time they are signed at."""
    chance = random.Random(seed)
    makers: list[Callable[[random.Random, str], bytes]] = [
        signed_with_hostile_data,
        signed_with_hostile_data,
        signed_but_not_json,
        hostile_headers,
        other_doors,
        broken_framing,
        noise,
    ]
    for _ in range(count):
        yield chance.choice(makers)(chance, secret)


def signed_with_hostile_data(chance: random.Random, secret: str) -> bytes:
    """Signed as it should be, and wrong in its content; the tenant named either is not there or cannot be."""
    ghost = chance.choice(("ghost", "all", "Ghost", "x"))
    bodies: list[dict[str, Any]] = [
        event("bot.updated", tenant=ghost, bot_id="b1", changes={"strategy_config": {"order_amount": 1}}),
        event("bot.started", tenant=ghost, bot_id="b1"),
        event("bot.created", tenant=ghost, bot=factories.grid_bot()),
        event("exchange.connected", tenant=ghost, connection=factories.connection()),
        event("tenant.updated", tenant=ghost, changes={"subdomain": "victim"}),
        event("subscription.changed", tenant=ghost, plan="pro"),
        event("backup.requested", tenant="victim"),
        # Two places are wrong, and no value above makes either right.
        event("tenant.created", **factories.grid_document(tenant="victim", plan="none", exchange_environment="moon")),
    ]
    body = chance.choice(bodies)
    for _ in range(chance.randint(1, 3)):
        _mutate(chance, body)
    try:
        raw = json.dumps(body).encode()
    except (ValueError, OverflowError):
        raw = b"{}"
    return _signed(chance, secret, raw)


def signed_but_not_json(chance: random.Random, secret: str) -> bytes:
    """Signed as it should be, and no JSON, or JSON that readers stumble over."""
    valid = json.dumps(event("bot.started", tenant="ghost", bot_id="b1")).encode()
    raw = chance.choice(
        [
            chance.randbytes(chance.randint(0, 200)),
            valid[: chance.randint(0, len(valid) - 1)],
            valid + valid,
            b"[" * chance.choice((10, 1000, 50_000)),
            b'{"a":' * chance.choice((10, 1000, 20_000)),
            b'{"type": "bot.started", "type": "bot.stopped"}',
            valid.decode().encode("utf-16"),
            b"\xef\xbb\xbf" + valid,
            b"9" * 5000,
            b'"\\ud800"',
            bytes(chance.choice((byte, chance.randrange(256))) for byte in valid),
        ]
    )
    return _signed(chance, secret, raw)


def hostile_headers(chance: random.Random, secret: str) -> bytes:
    """An event for a tenant that is there, with one header spoilt."""
    raw = json.dumps(event("bot.stopped", tenant="victim", bot_id="b1")).encode()
    fields = headers(secret, f"fuzz-{chance.randrange(10**9)}", raw)
    name = chance.choice(["webhook-id", "webhook-timestamp", "webhook-signature"])
    signature = fields["webhook-signature"]
    spoilt = {
        "webhook-id": ["", "a" * 129, "a b", "../x", "é", "a\tb", "x" * 20_000, '"', "{}"],
        "webhook-timestamp": ["", "x", "-1", "0", "9" * 400, "1e9", "NaN", "٣", str(int(time.time()) - 4000), "1.5"],
        "webhook-signature": [
            "", "v1", "v1,", "v1,=", "v1,é", "v1a," + signature[3:], signature[:-3], signature.lower(), "v1," * 500,
            "v2" + signature[2:], " ".join(["v1,AAAA"] * 300), signature[3:], "v1," + "A" * 44,
        ],
    }  # fmt: skip
    value = chance.choice([*spoilt[name], None])
    if value is None:
        del fields[name]
    else:
        fields[name] = value
    return request_bytes("POST", PATH, fields, raw)


def other_doors(chance: random.Random, _secret: str) -> bytes:
    """Other methods, paths, media types and tokens."""
    fields = {"Content-Type": chance.choice(("application/json", "text/xml", "", "a/b; c", "multipart/form-data"))}
    if chance.random() < 0.5:
        fields["Authorization"] = chance.choice(
            ("Bearer", "Bearer x", "Basic eDp5", "Bearer " + "a" * 9000, "Bearer é")
        )
    method = chance.choice((*METHODS, "GET", "POST"))
    path = chance.choice(PATHS)
    if path == "*" or method in ("CONNECT",):
        path = chance.choice((path, "/v1/events"))
    return request_bytes(method, path, fields, chance.randbytes(chance.randint(0, 50)))


def broken_framing(chance: random.Random, secret: str) -> bytes:
    """Lengths and encodings that do not fit what follows."""
    raw = json.dumps(event("bot.stopped", tenant="ghost", bot_id="b1")).encode()
    fields = headers(secret, f"fuzz-{chance.randrange(10**9)}", raw)
    fields.update(
        chance.choice(
            [
                {"Content-Length": "-1"},
                {"Content-Length": "x"},
                {"Content-Length": "9" * 30},
                {"Content-Length": str(len(raw) + chance.randint(1, 500))},
                {"Content-Length": f"{len(raw)}, {len(raw)}"},
                {"Content-Length": f"+{len(raw)}"},
                {"Transfer-Encoding": "chunked"},
                {"Transfer-Encoding": "chunked", "Content-Length": str(len(raw))},
                {"Transfer-Encoding": "chunked, chunked"},
                {"Expect": "200-maybe", "Content-Length": str(len(raw))},
                {"Content-Encoding": "gzip", "Content-Length": str(len(raw))},
                {"X" * chance.choice((10, 40_000)): "y" * chance.choice((10, 40_000))},
            ]
        )
    )
    body = chance.choice([raw, b"zz\r\n" + raw, b"5\r\nabc", b"ffffffffffffffff\r\n", b"0\r\n\r\n", raw[:20]])
    return request_bytes("POST", PATH, fields, body, with_length=False)


def noise(chance: random.Random, _secret: str) -> bytes:
    """No HTTP at all, or hardly."""
    return chance.choice(
        [
            chance.randbytes(chance.randint(1, 300)),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(60),
            b"POST /v1/events\r\n\r\n",
            b"POST /v1/events HTTP/9.9\r\n\r\n",
            b"POST  /v1/events  HTTP/1.1\r\n\r\n",
            b"\r\n\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
            b"GET / HTTP/1.1\nHost: x\n\n",
            b"GET " + b"/a" * 20_000 + b" HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ]
    )


def _signed(chance: random.Random, secret: str, raw: bytes) -> bytes:
    return request_bytes("POST", PATH, headers(secret, f"fuzz-{chance.randrange(10**9)}", raw), raw)


def _mutate(chance: random.Random, body: dict[str, Any]) -> None:
    """Changes one place somewhere below ``body``, but never makes it an event of a tenant that is there."""
    node: Any = body
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.7:
            node = node[key]
            continue
        break
    if key in ("plan", "exchange_environment") and body.get("type") == "tenant.created":
        node[key] = chance.choice([value for value in VALUES if value is not None])
        return
    kind = chance.random()
    if kind < 0.6:
        node[key] = chance.choice(VALUES)
    elif kind < 0.8 and isinstance(node, dict):
        node[chance.choice(TEXTS)] = chance.choice(VALUES)
    elif isinstance(node, dict) and key not in ("plan", "exchange_environment"):
        del node[key]
