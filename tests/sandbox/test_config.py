"""The configuration: every refusal names the field and never a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.config import load_accounts, parse_account, parse_settings
from sandbox.errors import ConfigError
from tests.sandbox.client import SECRET
from tests.sandbox.conftest import ACCOUNTS, write_accounts

RULES = {"price": "100", "tick": "0.01", "lot": "0.001", "min_notional": "5"}


def test_defaults_trade_the_pairs_of_the_catalogue_under_its_rules() -> None:
    text = (Path(__file__).parents[2] / "catalogue/exchanges/binance.yml").read_text()
    wanted = {name: {key: rules[key] for key in ("tick", "lot", "min_notional")}
              for name, rules in yaml.safe_load(text)["pairs"].items()}
    settings = parse_settings({})
    assert {rules.name: {"tick": str(rules.tick), "lot": str(rules.lot), "min_notional": str(rules.min_notional)}
            for rules in settings.pairs} == wanted
    assert (settings.https_port, settings.stream_port) == (443, 9443)


@pytest.mark.parametrize(("data", "field"), [
    ({"https_port": "443"}, "https_port"), ({"https_port": 70000}, "https_port"), ({"other": 1}, "unknown 'other'"),
    ({"tls": {"certificate": "x"}}, "tls"), ({"fees": {"maker": "0.2"}}, "fees.maker"),
    ({"fees": {"maker": 0.001}}, "fees.maker"), ({"pairs": {"btc-usdt": RULES}}, "pairs.btc-usdt"),
    ({"pairs": {"BTCUSDT": RULES}}, "pairs.BTCUSDT"), ({"pairs": {"A-B": RULES | {"tick": "0"}}}, "tick"),
    ({"pairs": {"A-B": RULES | {"tick": "-1"}}}, "tick"), ({"pairs": {"A-B": RULES | {"tick": "x"}}}, "tick"),
    ({"pairs": {"A-B": RULES | {"price": "100.001"}}}, "price"), ({"pairs": {"A-B": {"tick": "1"}}}, "missing"),
    ({"pairs": {"A-B": RULES | {"odd": "1"}}}, "odd"), ({"pairs": []}, "pairs"), ({"pairs": {}}, "pairs"),
    ({"tls": None}, "tls"), ({"state_dir": ""}, "state_dir"),
])
def test_wrong_configuration_names_the_field(data: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        parse_settings(data)


@pytest.mark.parametrize(("change", "field"), [
    ({"name": "a b"}, "name"), ({"name": ""}, "name"), ({"api_key": "short"}, "api_key"),
    ({"api_key": "a b c d e f"}, "api_key"),
    ({"api_secret": "1234567"}, "api_secret"), ({"api_secret": 12345678}, "api_secret"), ({"other": "x"}, "other"),
    ({"balances": {"usdt": "1"}}, "asset"), ({"balances": {"USDT": "-1"}}, "USDT"),
    ({"balances": {"USDT": 1.5}}, "USDT"),
    ({"balances": {"USDT": "1e400"}}, "USDT"), ({"balances": []}, "balances"), ({"maker_fee": "1"}, "maker_fee"),
])
def test_wrong_account_names_the_field_and_not_the_secret(change: dict[str, Any], field: str) -> None:
    account = ACCOUNTS[0] | change
    with pytest.raises(ConfigError, match=field) as refusal:
        parse_account(account, where="account")
    assert SECRET not in str(refusal.value)


def test_secrets_are_not_in_representations() -> None:
    assert SECRET not in repr(parse_account(ACCOUNTS[0], where="account"))


def test_accounts_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    write_accounts(path, ACCOUNTS)
    assert len(load_accounts(path)) == 2
    path.chmod(0o440)
    with pytest.raises(ConfigError, match="0400"):
        load_accounts(path)


@pytest.mark.parametrize("field", ["name", "api_key"])
def test_two_accounts_cannot_share_name_or_key(tmp_path: Path, field: str) -> None:
    path = tmp_path / "accounts.json"
    write_accounts(path, [ACCOUNTS[0], ACCOUNTS[1] | {field: ACCOUNTS[0][field]}])
    with pytest.raises(ConfigError, match=f"same {field}"):
        load_accounts(path)
