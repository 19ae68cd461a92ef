# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``hummingfleet event ...``"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import shown
from . import base
from .base import Exit, OperationError, State, UnreachableError, pass_state
from .times import Length, Since

if TYPE_CHECKING:
    from ..journal import EventRecord, Journal

event = base.group("event", "Events from the portal: send, look at, try again, discard.")

_MAX_BYTES = 4 * 2**20
_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.5
_TAIL_SECONDS = 1.0
_STATES = click.Choice(["accepted", "applied", "failed", "discarded"])


@event.command()
@click.argument("type_", metavar="TYPE")
@click.option("--tenant", help="The tenant, unless the data name it.")
@click.option("--data", "source", metavar="JSON|@FILE|-", default="{}",
              help="The event's data besides the tenant: JSON, a file with it, or - for standard input.")  # fmt: skip
@click.option("--id", "event_id", help="The event's id; an id that was used is not accepted twice.  [default: random]")
@click.option("--sequence", type=click.IntRange(0), help="The event's number in its tenant's order.")
@click.option("--url", help="Where to.  [default: this installation's webhook]")
@click.option("--ca", "ca_path", type=click.Path(exists=True, dir_okay=False), help="Certificates to trust, PEM.")
@click.option("--secret-file", type=click.Path(dir_okay=False, path_type=Path),
              help="A file with the secret, whsec_...  [default: this installation's inbound one]")  # fmt: skip
@click.option("--wait", is_flag=True, help="Wait until the event is applied or has failed.")
@click.option("--timeout", type=Length(), default="15m", show_default=True, metavar="TIME", help="How long to wait.")
@click.option("--token-file", type=click.Path(dir_okay=False, path_type=Path),
              help="With --wait: ask the status API, with the token in here.  [default: ask the registry]")  # fmt: skip
@base.json_option
@pass_state
def send(
    state: State,
    type_: str,
    tenant: str | None,
    source: str,
    event_id: str | None,
    sequence: int | None,
    url: str | None,
    ca_path: str | None,
    secret_file: Path | None,
    wait: bool,
    timeout: float,
    token_file: Path | None,
) -> None:
    """Sign an event as the portal does, send it, and say what the webhook answered.

    Ends with 3 if the event is refused, 5 if the webhook does not answer, 6 if it asks to come back later; with --wait
    with 1 if the event failed.
    """
    import secrets

    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import iso_time

    now = time.time()
    event_id = event_id or f"evt_{secrets.token_hex(12)}"
    data = _read_data(source)
    body: dict[str, Any] = {
        "type": type_,
        "timestamp": iso_time(now),
        "data": {"tenant": tenant, **data} if tenant is not None else data,
    }
    if sequence is not None:
        body["sequence"] = sequence
    content = json.dumps(body).encode()
    url = url or _local_url(state)
    headers = {"Content-Type": "application/json", **_sign(state, secret_file, event_id, now, content)}
    code, answer = _http("POST", url, headers, content, ca_path)
    if code not in (200, 202):
        raise _refusal(event_id, code, answer)
    said = "was accepted" if code == 202 else "had been accepted before"
    status_url = _absolute(url, str(answer.get("status_url") or f"{url.rstrip('/')}/{event_id}"))
    plain = dict(answer.get("event") or {"id": event_id})
    state.output.say(f"event {event_id} {said}: {status_url}")
    if wait:
        ask = (
            _ask_registry(state, event_id) if token_file is None else _ask_api(status_url, _secret(token_file), ca_path)
        )
        plain = _wait(state, event_id, type_, ask, timeout)
        state.output.say(f"event {event_id} is {plain['state']}, revision {plain['revision']}")
    state.output.result({"event": plain, "status_url": status_url, "repeated": code == 200})


@event.command("list")
@click.option("--tenant", help="Only those of this tenant.")
@click.option("--state", "wanted", type=_STATES, help="Only those in this state.")
@click.option("--since", type=Since(), metavar="TIME", help="Only those received since: 2h, 7d, or an ISO 8601 time.")
@click.option("--after", metavar="CURSOR", help="Where the page before ended.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="How many at most.")
@base.json_option
@pass_state
def list_(
    state: State, tenant: str | None, wanted: str | None, since: str | None, after: str | None, limit: int
) -> None:
    """List events, the newest first."""
    page = _journal(state).list(tenant=tenant, state=wanted, since=since, after=after, limit=limit)
    state.output.result({"events": [one.plain() for one in page.items], "next": page.next})
    state.output.table(
        ("received (UTC)", "id", "tenant", "type", "state", "revision", "reason"),
        [(one.received_at, one.id, one.tenant, one.type, one.state, one.revision, one.reason) for one in page.items],
        wrap=("reason",),
        empty="no events",
    )
    if page.next is not None:
        state.output.warn(f"there are more: --after {page.next}")


@event.command()
@click.argument("event_id", metavar="ID")
@click.option("--body", "with_body", is_flag=True, help="Also what the portal sent, ciphertexts included.")
@base.json_option
@pass_state
def show(state: State, event_id: str, with_body: bool) -> None:
    """Show what became of an event; of one that failed last, also what operators are told of it."""
    journal = _journal(state)
    found = journal.get(event_id)
    plain = {**found.plain(), "message": _message(journal, found)}
    body = journal.body(event_id) if with_body else None
    state.output.result({**plain, "body": body} if with_body else plain)
    for name, value in plain.items():
        state.output.say(f"{name}: {'-' if value is None else value}")
    if with_body:
        state.output.say(json.dumps(body, indent=2))


@event.command()
@click.argument("event_id", metavar="ID")
@base.json_option
@pass_state
def retry(state: State, event_id: str) -> None:
    """Have a failed event tried again, with those that failed in the same run."""
    found = _journal(state).retry(event_id, actor=base.actor())
    state.output.result(found.plain())
    state.output.say(f"event {shown(event_id)} is tried again")


@event.command()
@click.argument("event_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@base.json_option
@pass_state
def discard(state: State, event_id: str, yes: bool) -> None:
    """Take what a failed event changed out of its tenant's document again."""
    journal = _journal(state)
    found = journal.get(event_id)
    if not yes and not click.confirm(
        f"Take {found.type} {event_id} out of tenant {found.tenant}'s document?", err=True
    ):
        raise OperationError("nothing was discarded")
    found = journal.discard(event_id, actor=base.actor())
    state.output.result(found.plain())
    state.output.say(f"event {event_id} is discarded")


@event.command()
@click.option("--tenant", help="Only those of this tenant.")
@click.option("--lines", type=click.IntRange(0, 500), default=10, show_default=True, help="How many to begin with.")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on until Ctrl+C.")
@base.json_option
@pass_state
def tail(state: State, tenant: str | None, lines: int, follow: bool) -> None:
    """Show events as they come in and as their state changes; with --json one JSON value per line."""
    journal = _journal(state)
    for record in follow_events(journal, tenant, lines, (lambda: time.sleep(_TAIL_SECONDS)) if follow else None):
        if state.output.as_json:
            click.echo(json.dumps(record.plain()))
        else:
            at = record.received_at if record.state == "accepted" else record.finished_at
            reason = f"  {record.reason}" if record.reason else ""
            state.output.say(f"{at}  {record.state:9}  {record.tenant}  {record.type}  {record.id}{reason}")
        sys.stdout.flush()


@event.command()
@click.argument("type_", metavar="TYPE", required=False)
@base.json_option
@pass_state
def example(state: State, type_: str | None) -> None:
    """Print a body that is valid for events of TYPE; without TYPE the types there are."""
    from ..events import EVENT_TYPES

    if type_ is None:
        state.output.result(list(EVENT_TYPES))
        state.output.say("\n".join(EVENT_TYPES))
        return
    if type_ not in EVENT_TYPES:
        raise OperationError(f"there is no event {type_!r}; there are: {', '.join(EVENT_TYPES)}", Exit.USAGE)
    found = EVENT_TYPES[type_].example()
    state.output.result(found)
    state.output.say(json.dumps(found, indent=2))


def follow_events(
    journal: Journal, tenant: str | None, lines: int, pause: Callable[[], None] | None
) -> Iterator[EventRecord]:
    """The last ``lines`` events, and then, after each ``pause``, those that are new or have another state."""
    newest = journal.list(tenant=tenant, limit=max(lines, 1)).items
    number = newest[0].number if newest else 0
    waiting: dict[str, EventRecord] = {}

    def seen(record: EventRecord) -> EventRecord:
        if record.state == "accepted":
            waiting[record.id] = record
        else:
            waiting.pop(record.id, None)
        return record

    yield from map(seen, reversed(newest[:lines]))
    while pause is not None:
        pause()
        for old in list(waiting.values()):
            record = journal.get(old.id)
            if (record.state, record.attempts) != (old.state, old.attempts):
                yield seen(record)
        for record in journal.follow(number, tenant=tenant):
            number = record.number
            yield seen(record)


# --- sending ---------------------------------------------------------------------------------------------------------


def _read_data(source: str) -> dict[str, Any]:
    if source == "-":
        text = sys.stdin.read(_MAX_BYTES)
    elif source.startswith("@"):
        try:
            with Path(source[1:]).open(encoding="utf-8") as stream:
                text = stream.read(_MAX_BYTES)
        except (OSError, UnicodeDecodeError):
            raise OperationError(f"the file {source[1:]} cannot be read as text", Exit.USAGE) from None
    else:
        text = source
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OperationError(f"the data are not JSON: {error}", Exit.USAGE) from None
    if not isinstance(data, dict):
        raise OperationError('the data must be a JSON object such as {"bot_id": "b1"}', Exit.USAGE)
    return data


def _secret(path: Path) -> str:
    """The one line of a file that holds a secret."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise OperationError(f"the file {path} cannot be read", Exit.USAGE) from None


def _sign(state: State, secret_file: Path | None, event_id: str, now: float, content: bytes) -> dict[str, str]:
    from .. import signing

    if secret_file is not None:
        secret = _secret(secret_file)
        if not signing.is_secret(secret):
            raise OperationError(f"the file {secret_file} holds no secret that begins with whsec_", Exit.USAGE)
    else:
        from ..secrets_file import SecretsFile

        secret = SecretsFile(state.installation.fleet.webhook.secrets_path).current("inbound").secret
    if not signing.MESSAGE_ID.fullmatch(event_id):
        raise OperationError("an event's id has 1 to 128 letters, digits, dots, underscores and hyphens", Exit.USAGE)
    return signing.sign([secret], event_id, now, content)


def _local_url(state: State) -> str:
    host, port = state.installation.fleet.webhook.listen
    if host in ("0.0.0.0", "::"):  # noqa: S104  compared, not bound to
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1/events"


def _absolute(url: str, status_url: str) -> str:
    """The status URL; of another machine than the one that was asked it is not believed, for a token goes there."""
    from urllib.parse import urljoin, urlsplit

    joined = urlsplit(urljoin(url, status_url))
    base_ = urlsplit(url)
    return joined._replace(scheme=base_.scheme, netloc=base_.netloc).geturl()


def _http(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, ca_path: str | None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the answer; redirects and proxies are not followed. Raises UnreachableError."""
    import http.client
    import ssl
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https"):
        raise OperationError("the URL must look like https://fleet.example.com/v1/events", Exit.USAGE)
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca_path)
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=_TIMEOUT_SECONDS, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, parts._replace(scheme="", netloc="", fragment="").geturl(), body, dict(headers))
            response = connection.getresponse()
            text = response.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "verify_message", None) or type(error).__name__
        raise UnreachableError(
            f"the webhook at {url} does not answer ({reason}); 'hummingfleet serve' starts it"
        ) from None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    return response.status, data if isinstance(data, dict) else {}


def _refusal(event_id: str, code: int, answer: Mapping[str, Any]) -> OperationError:
    """What an answer that is not 200 or 202 means, with each fault that it names."""
    lines = [
        f"event {event_id} was not accepted ({code}): {answer.get('detail') or answer.get('title') or 'no reason'}"
    ]
    for fault in answer.get("faults") or ():
        if isinstance(fault, Mapping):
            allowed = f"; allowed: {fault['allowed']}" if fault.get("allowed") else ""
            lines.append(f"- {fault.get('pointer') or 'the event'}: {fault.get('problem')}{allowed}")
    exits = {429: Exit.BUSY, 503: Exit.BUSY}
    return OperationError("\n".join(lines), exits.get(code, Exit.REFUSED if 400 <= code < 500 else Exit.FAILED))


def _ask_registry(state: State, event_id: str) -> Callable[[], dict[str, Any]]:
    journal = _journal(state)
    return lambda: journal.get(event_id).plain()


def _ask_api(url: str, token: str, ca_path: str | None) -> Callable[[], dict[str, Any]]:
    def ask() -> dict[str, Any]:
        code, answer = _http("GET", url, {"Authorization": f"Bearer {token}"}, None, ca_path)
        if code != 200:
            reason = answer.get("detail") or answer.get("title") or "no reason"
            raise OperationError(f"the status API answered {code}: {reason}")
        plain: dict[str, Any] = answer.get("event", answer)
        return plain

    return ask


def _wait(state: State, event_id: str, type_: str, ask: Callable[[], dict[str, Any]], timeout: float) -> dict[str, Any]:
    """The event when it is applied; raises OperationError if it failed, or did not finish in time."""
    end = time.monotonic() + timeout
    with state.progress().step(f"Apply {type_}") as step:
        while True:
            plain = ask()
            if plain["state"] != "accepted":
                break
            if time.monotonic() >= end:
                raise OperationError(f"event {event_id} is still waiting or being worked on", Exit.BUSY)
            if plain.get("reason"):
                step.say(f"failed {plain['attempts']} times, is tried again: {plain['reason']}")
            time.sleep(_POLL_SECONDS)
    if plain["state"] != "applied":
        reason = f" ({plain['code']}): {plain['reason']}" if plain.get("reason") else ""
        more = f"; more about it: hummingfleet event show {event_id}" if reason else ""
        raise OperationError(f"event {event_id} is {plain['state']}{reason}{more}")
    return plain


def _message(journal: Journal, event: EventRecord) -> str | None:
    """Why the event failed in words for operators, as long as nothing else has happened to its tenant since."""
    from ansible_collections.hummingfleet.core.plugins.module_utils.registry import UnknownTenantError

    if event.code is None:
        return None
    try:
        failure = journal.tenant_status(event.tenant).failure
    except UnknownTenantError:
        return None
    if failure is None or failure["code"] != event.code:
        return None
    # Of one that waits to be tried again, the last run's; of one that has ended, its own run's alone.
    return str(failure["message"]) if event.finished_at in (None, failure["at"]) else None


def _journal(state: State) -> Journal:
    from ..journal import Journal

    here = state.installation
    return Journal(here.registry, here.fleet, here.catalogue)
