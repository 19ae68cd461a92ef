# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MQTT broker of a node as the control node sees it: its users, their passwords, and how to reach it.

A bot's user is its engine's instance id, ``<tenant>.<bot>``. Neither id can hold a dot or one of MQTT's wildcards, so
no two bots have the same, and none is that of ``SIGNALS_USER``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.derive import document_password
from ansible_collections.hummingfleet.core.plugins.module_utils.errors import HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.fleet import Fleet
from ansible_collections.hummingfleet.core.plugins.module_utils.keyring import KeyRing

ALIAS: Final = "broker"
"""The broker's name inside tenants' networks."""

PORT: Final = 1883
"""The broker's port inside tenants' networks."""

SIGNALS_USER: Final = "signals"
"""Who hands signals to bots and reads their answers: the web service."""

HASH_ITERATIONS: Final = 101
"""Mosquitto's default. Passwords are 256 random bits, so that guesses need no slowing down."""

_SALT_BYTES = 12


class BrokerError(HummingfleetError):
    """A node's broker cannot be reached or set up; the text says what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """How the control node reaches a node's broker: MQTT over TLS, verified with the CA in ``ca_path``.

    The password is made of the secret that the file at ``password_path`` holds.
    """

    host: str
    port: int
    ca_path: Path
    user: str
    password_path: Path

    @property
    def password(self) -> str:
        """The user's password; raises OSError, or ValueError where the file holds no text."""
        return signals_password(self.password_path.read_text(encoding="utf-8").strip(), self.host)


def control_dir(fleet: Fleet) -> Path:
    """Where the control node keeps the brokers' certificate authority and the signals user's password."""
    return fleet.root / "var" / "broker"


def ca_path(fleet: Fleet) -> Path:
    """The certificate of the brokers' authority; no secret."""
    return control_dir(fleet) / "ca.pem"


def ca_key_path(fleet: Fleet) -> Path:
    """The key of the brokers' authority; it never leaves the control node."""
    return control_dir(fleet) / "ca.key"


def password_path(fleet: Fleet) -> Path:
    """What the signals user's passwords are made of."""
    return control_dir(fleet) / "signals_password"


def broker_access(fleet: Fleet, node_id: str) -> BrokerAccess:
    """How to reach the broker of that node; raises BrokerError where the fleet gives it none."""
    node = fleet.nodes.get(node_id)
    if node is None:
        raise BrokerError(f"the fleet file {fleet.path} has no node {node_id}; put it back")
    if not fleet.broker_enabled:
        raise BrokerError(f"the fleet file {fleet.path} says broker_enabled: false, so no node has an MQTT broker")
    if node.broker_address is None:
        raise BrokerError(
            f"the fleet file {fleet.path} gives no IPv4 address for node {node_id}; give the node one as broker_address"
        )
    return BrokerAccess(
        host=node.broker_address,
        port=fleet.broker_port,
        ca_path=ca_path(fleet),
        user=SIGNALS_USER,
        password_path=password_path(fleet),
    )


def signals_password(secret: str, host: str) -> str:
    """The signals user's password at the broker with that address, 43 urlsafe characters.

    A broker sees the password of whoever logs in. So whoever takes a node over learns one that is good there only.
    """
    key = hmac.digest(secret.encode(), f"hummingfleet|signals|{host}".encode(), "sha256")
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def bot_user(tenant: str, bot: str) -> str:
    """The name under which a bot logs in, which is also the place of its topics: ``hbot/<user>/…``."""
    return f"{tenant}.{bot}"


def bot_password(keyring: KeyRing, document: Mapping[str, Any], bot: str) -> str:
    """The password of one bot of the tenant whose stored (plain) document is given; raises DeriveError."""
    return document_password(keyring, document, "broker", bot)


def user_line(user: str, password: str) -> str:
    """One line of Mosquitto's password file: the user and PBKDF2-HMAC-SHA512 of the password.

    Equal arguments give equal lines, so that a converge sees whether anything changed. The salt need not be random for
    that reason: it keeps equal passwords of two users apart, and no password is one that tables could hold.
    """
    salt = hashlib.sha256(f"hummingfleet|broker|{user}".encode()).digest()[:_SALT_BYTES]
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, HASH_ITERATIONS)
    return f"{user}:$7${HASH_ITERATIONS}${_base64(salt)}${_base64(key)}\n"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
