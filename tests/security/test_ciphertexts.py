"""Credentials that do not open: one clear line for their tenant, nothing for anybody else."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.document import DocumentError

from tests.factories import connection, document, market_making_bot
from tests.installation import Installation, Run

pytestmark = pytest.mark.lab

PREFIX = "hfsec-x-"
GOOD = f"{PREFIX}good"
SECRET = "a secret that nobody sees"


def changed(text: str, edit: Callable[[bytes], bytes]) -> str:
    return base64.b64encode(edit(base64.b64decode(text))).decode()


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


class Cases:
    """Documents of one tenant each, with credentials that do not open, and the words that say why."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.made: dict[str, tuple[dict[str, Any], str]] = {}
        no_key = "`encrypted_api_key` does not open with key k1"
        no_secret = "`encrypted_api_secret` does not open with key k1"
        self.add("undecryptable", lambda tenant: connection(seed=tenant), no_key)
        self.add("cut", lambda tenant: self.edited(tenant, "encrypted_api_secret", lambda data: data[:-5]), no_secret)
        self.add("altered", lambda tenant: self.edited(tenant, "encrypted_api_key", flip), no_key)
        self.add("nonce", lambda tenant: self.edited(tenant, "nonce_key", flip), no_key)
        self.add("swapped", self.swapped, no_key)
        self.add("foreign", lambda _tenant: installation.connection(f"{PREFIX}somebody"), no_key)
        self.add("moved", lambda tenant: installation.connection(tenant) | {"id": "ex2"}, no_key)
        self.add("nokey", lambda tenant: installation.connection(tenant) | {"key_id": "k9"}, "does not hold key k9")

    def add(self, name: str, make: Callable[[str], dict[str, Any]], words: str) -> None:
        tenant = f"{PREFIX}{name}"
        self.made[tenant] = (make(tenant), words)

    def edited(self, tenant: str, field: str, edit: Callable[[bytes], bytes]) -> dict[str, Any]:
        made = self.installation.connection(tenant, api_secret=SECRET)
        return made | {field: changed(made[field], edit)}

    def swapped(self, tenant: str) -> dict[str, Any]:
        """Key and secret in each other's place."""
        made = self.installation.connection(tenant)
        names = {"encrypted_api_key": "encrypted_api_secret", "nonce_key": "nonce_secret"}
        both = names | {new: old for old, new in names.items()}
        return {both.get(name, name): value for name, value in made.items()}


def submit(installation: Installation, tenant: str, made: dict[str, Any]) -> None:
    bot = market_making_bot(exchange_connection_id=made["id"])
    options = {"exchange_environment": "live", "redis": {"enabled": False}}
    installation.submit(document(tenant=tenant, exchange_connections=[made], bots=[bot], **options))


class Outcome:
    """One converge of all of them."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.cases = Cases(installation)
        submit(installation, GOOD, installation.connection(GOOD))
        for tenant, (made, _words) in self.cases.made.items():
            submit(installation, tenant, made)
        self.run: Run = installation.converge()


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    folder = Path(tempfile.mkdtemp(prefix="hfsec-x-", dir="/var/tmp"))
    installation = Installation(folder, prefix=PREFIX, pool="10.197.6.0/23", uid_start=353_000)
    try:
        yield Outcome(installation)
    finally:
        installation.clean()
        shutil.rmtree(folder)


CASES = ["undecryptable", "cut", "altered", "nonce", "swapped", "foreign", "moved", "nokey"]


@pytest.mark.parametrize("case", CASES)
def test_a_tenant_whose_credentials_do_not_open_fails_with_one_clear_line(outcome: Outcome, case: str) -> None:
    tenant = f"{PREFIX}{case}"
    words = outcome.cases.made[tenant][1]
    record = outcome.installation.registry.get(tenant)
    assert record.applied_revision == 0
    assert record.outcome is not None
    message = str(record.outcome["message"])
    assert message.startswith(f"Tenant {tenant}, connection ") and words in message
    assert message.isprintable() and len(message) < 400
    lines = [line for line in outcome.run.output.splitlines() if line.startswith("[ERROR]") and f"{tenant}: " in line]
    assert len(lines) == 1 and lines[0].endswith(f"tenant {tenant}: {message}")
    assert outcome.run.recap[f"tenant-{tenant}"]["failed"] == 1


def test_the_others_are_not_affected(outcome: Outcome) -> None:
    record = outcome.installation.registry.get(GOOD)
    assert record.applied_revision == record.revision
    assert set(outcome.installation.containers()) == {f"{GOOD}-postgres", f"{GOOD}-bot_mm1"}
    assert outcome.run.recap[f"tenant-{GOOD}"]["failed"] == 0
    assert outcome.run.code != 0


def test_nothing_of_the_credentials_shows(outcome: Outcome) -> None:
    assert {f"{PREFIX}{case}" for case in CASES} == set(outcome.cases.made)
    for tenant, (made, _words) in outcome.cases.made.items():
        for text in (SECRET, f"key of {tenant}", *(v for k, v in made.items() if k.startswith(("encrypted", "nonce")))):
            assert text not in outcome.run.output


def test_a_ciphertext_known_from_another_tenant_is_refused(outcome: Outcome) -> None:
    known = outcome.installation.registry.get(GOOD).document["exchange_connections"][0]
    with pytest.raises(DocumentError) as caught:
        submit(outcome.installation, f"{PREFIX}thief", dict(known))
    faults = {fault.pointer.rpartition("/")[2]: fault.rule for fault in caught.value.faults}
    assert faults == dict.fromkeys(
        ("encrypted_api_key", "encrypted_api_secret", "nonce_key", "nonce_secret"), "foreign_ciphertext"
    )
    assert outcome.installation.registry.list(only=[f"{PREFIX}thief"]) == ()


def test_new_credentials_mend_it(outcome: Outcome) -> None:
    tenant = f"{PREFIX}cut"
    outcome.installation.change(
        tenant, lambda data: data.update(exchange_connections=[outcome.installation.connection(tenant)])
    )
    run = outcome.installation.converge("--limit", f"tenant-{tenant}")
    assert run.code == 0, run.output[-2000:]
    assert f"{tenant}-bot_mm1" in outcome.installation.containers()
