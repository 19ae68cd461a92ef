# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks: bearer tokens and what their scope allows, and the address a request really comes from."""

from __future__ import annotations

import ipaddress

from .tokens import SCOPES, Scope, Token

_PREFIX = "bearer "
_TOKEN_MAX = 512
_HOPS_MAX = 32
_V6_SITE = 64  # whoever has one IPv6 address usually has the 2**64 around it

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


EVERYBODY: frozenset[Scope] = frozenset(SCOPES)
OPERATORS: frozenset[Scope] = frozenset({"operator"})
WATCHERS: frozenset[Scope] = frozenset({"operator", "read-only"})
PORTALS: frozenset[Scope] = frozenset({"operator", "portal"})


def sees(token: Token, tenant: str) -> bool:
    """Whether the bearer may know that ``tenant`` exists."""
    return token.tenant is None or token.tenant == tenant


def bearer(header: str | None) -> str | None:
    """The token in the header ``Authorization``; None if it holds none."""
    if not header or header[: len(_PREFIX)].lower() != _PREFIX:
        return None
    token = header[len(_PREFIX) :].strip()
    return token if token and len(token) <= _TOKEN_MAX and token.isascii() and token.isprintable() else None


def client_address(peer: str, forwarded: str | None, trusted: tuple[Network, ...]) -> str:
    """The client's address: ``peer``, the other end of the connection, unless that is a trusted proxy.

    Then it is the last address of ``forwarded`` (the header ``X-Forwarded-For``) that is no trusted proxy either:
    what stands before it may be invented.
    """
    if not forwarded or not trusted or not _within(peer, trusted):
        return peer
    address = peer
    for hop in reversed(forwarded.split(",")[-_HOPS_MAX:]):
        try:
            address = str(ipaddress.ip_address(hop.strip()))
        except ValueError:
            break
        if not _within(address, trusted):
            break
    return address


def limited_as(address: str) -> str:
    """What limits per address are counted by: the address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed, _V6_SITE), strict=False))


def _within(address: str, trusted: tuple[Network, ...]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted)
