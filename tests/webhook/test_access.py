"""Who asks: tokens in headers, and addresses behind proxies."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.access import bearer, client_address, limited_as, sees
from webhook.tokens import Token

TRUSTED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize("header", ["Bearer hft_1", "bearer hft_1", "BEARER   hft_1  "])
def test_the_token_is_what_stands_after_bearer(header: str) -> None:
    assert bearer(header) == "hft_1"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic hft_1", "hft_1", "Bearer é", "Bearer a\x00b", "Bearer " + "x" * 513],
)
def test_anything_else_holds_no_token(header: str | None) -> None:
    assert bearer(header) is None


def test_a_token_of_one_tenant_sees_that_one() -> None:
    assert sees(Token("t", "portal", None), "acme")
    assert sees(Token("t", "portal", "acme"), "acme")
    assert not sees(Token("t", "operator", "acme"), "other")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),  # nobody we trust says so
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", "203.0.113.5, 198.51.100.9", "198.51.100.9"),  # the first may be invented
        ("10.0.0.1", "198.51.100.9, 10.2.3.4", "198.51.100.9"),  # two proxies of ours
        ("10.0.0.1", "10.9.9.9, 10.2.3.4", "10.9.9.9"),
        ("10.0.0.1", "rubbish", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9, rubbish, 10.2.3.4", "10.2.3.4"),
        ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
        ("fd00::1", "198.51.100.9", "198.51.100.9"),
        ("-", "198.51.100.9", "-"),
    ],
)
def test_only_trusted_proxies_say_who_the_client_is(peer: str, forwarded: str | None, address: str) -> None:
    assert client_address(peer, forwarded, TRUSTED) == address


def test_without_trusted_proxies_the_header_means_nothing() -> None:
    assert client_address("10.0.0.1", "198.51.100.9", ()) == "10.0.0.1"


@given(st.text(max_size=300))
def test_whatever_a_proxy_forwards_the_answer_is_an_address(forwarded: str) -> None:
    ipaddress.ip_address(client_address("10.0.0.1", forwarded, TRUSTED))


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::99", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("-", "-"),
    ],
)
def test_limits_count_an_ipv6_site_as_one_address(address: str, key: str) -> None:
    assert limited_as(address) == key
