"""The catalogue: what ships is consistent, and a file somebody broke is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import CatalogueError, load_catalogue
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES

from tests import factories


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(factories.ROOT / "catalogue", tmp_path / "catalogue"))


def test_what_ships_is_consistent() -> None:
    catalogue = factories.catalogue()
    assert len(catalogue.connectors) == 63
    for plan in catalogue.plans.values():
        assert set(plan.strategies) <= {*TEMPLATES, "*"}
        assert plan.bots > 0
    for exchange in catalogue.exchanges.values():
        assert catalogue.connectors[exchange.name].kind == "spot"
        for pair, rules in exchange.pairs.items():
            assert f"{rules.base}-{rules.quote}" == pair == rules.pair
            assert rules.min_amount % rules.lot == 0
    assert {"BTC-USDT", "ETH-USDT"} <= set(catalogue.exchanges["binance"].pairs)


def test_a_release_names_images_for_both_ways_of_getting_them() -> None:
    release = factories.catalogue().releases["2026.09"]
    assert release.image("postgres", "registry") == "postgres:15"
    assert release.image("engine", "build") == "hummingfleet/engine:20260922-1"
    assert release.services["engine"].build == {"hummingbot": "20260922", "overrides": ["coincurve>=21"]}
    with pytest.raises(CatalogueError, match="no service 'kafka'"):
        release.image("kafka", "registry")
    with pytest.raises(CatalogueError, match="no build image for edge"):
        release.image("edge", "build")


def test_what_cannot_be_traded_is_spot_and_named_by_no_plan() -> None:
    catalogue = factories.catalogue()
    untradable = {name for name, connector in catalogue.connectors.items() if connector.untradable is not None}
    assert {"hyperliquid", "kraken", "kucoin"} < untradable
    assert {catalogue.connectors[name].kind for name in untradable} == {"spot"}
    assert not untradable & set(catalogue.exchanges)
    for plan in catalogue.plans.values():
        assert not untradable & set(plan.exchanges)


@pytest.mark.parametrize(
    ("connector", "given", "field"),
    [
        ("binance", "api_key", "binance_api_key"),
        ("binance", "binance_api_secret", "binance_api_secret"),
        ("kucoin", "api_secret", "kucoin_secret_key"),
        ("kucoin", "passphrase", "kucoin_passphrase"),
        ("bybit_perpetual", "api_secret", "bybit_perpetual_secret_key"),
        ("bing_x", "api_key", "bingx_api_key"),
        ("backpack_perpetual", "api_secret", "backpack_api_secret"),
        ("architect_perpetual", "api_key", "api_key"),
        ("derive", "session_private_key", "session_private_key"),
        ("binance_perpetual_testnet", "api_key", "binance_perpetual_testnet_api_key"),
    ],
)
def test_fields_have_the_engines_names_and_short_ones(connector: str, given: str, field: str) -> None:
    found = factories.catalogue().connectors[connector].find_field(given)
    assert found is not None and found.name == field


def test_short_names_of_a_connector_are_unique() -> None:
    for connector in factories.catalogue().connectors.values():
        names = [name for field in connector.fields for name in {field.name, field.short}]
        assert len(names) == len(set(names)), connector.name


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("plans.yml", "  bots: 2\n", "", "plans.yml lacks the key 'bots'"),
        ("plans.yml", "  bots: 2\n", "  bots: many\n", "bots must be a whole number"),
        ("plans.yml", "[binance, bybit]", "[binanse]", "connectors.json does not have: binanse"),
        ("plans.yml", "bot_cpus: 0.5", "bot_cpus: 0", "bot_cpus must be greater than 0"),
        ("plans.yml", "{max_position: 10000, ", "{", "starter/ceilings/USD/max_position: the field is missing"),
        ("plans.yml", "max_order: 5000", "max_order_usd: 5000", "ceilings/USD/max_order_usd: there is no field"),
        ("plans.yml", "max_open_orders: 100", "max_open_orders: 0", "ceilings/USD/max_open_orders: 0 is out of range"),
        ("plans.yml", "  ceilings:\n    USD", "  ceiling:\n    USD", "plans.yml lacks the key 'ceilings'"),
        ("plans.yml", "starter:", "starter: [", "plans.yml is not usable"),
        ("releases.yml", 'agent: "1.0.0"', "agent: 1", "agent must be a version in quotes"),
        ("connectors.json", "{", "[", "connectors.json is not usable"),
        ("connectors.json", '"untradable": "', '"untradable": 1, "was": "', "backpack: untradable must say why"),
        ("connectors.json", '"untradable": "', '"untradable": " ", "was": "', "backpack: untradable must say why"),
        ("connectors.json", '"untradable": "', '"untradable": null, "was": "', "backpack: untradable must say why"),
        ("exchanges/binance.yml", "BTC-USDT:", "BTCUSDT:", "'BTCUSDT' is not BASE-QUOTE"),
        ("exchanges/binance.yml", 'tick: "0.01"', 'tick: "x"', "binance.yml is not usable"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(folder: Path, file: str, old: str, new: str, says: str) -> None:
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CatalogueError, match=file) as caught:
        load_catalogue(folder)
    assert says in str(caught.value)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "releases.yml").unlink()
    with pytest.raises(CatalogueError, match=r"releases\.yml cannot be read"):
        load_catalogue(folder)


def test_rules_of_an_unknown_exchange_are_refused(folder: Path) -> None:
    shutil.copy(folder / "exchanges" / "binance.yml", folder / "exchanges" / "binanse.yml")
    with pytest.raises(CatalogueError, match="binanse is not a connector"):
        load_catalogue(folder)
