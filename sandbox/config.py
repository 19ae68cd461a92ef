"""The configuration file and the accounts file: JSON, checked completely before anything starts."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from sandbox.errors import ConfigError
from sandbox.exchange import MAX_AMOUNT, ZERO, PairRules

_CENTS = {"tick": "0.01", "min_notional": "5"}
_SMALL = {"tick": "0.0001", "lot": "0.1", "min_notional": "5", "max_quantity": "9000000"}
DEFAULT_PAIRS: dict[str, dict[str, str]] = {
    "BTC-USDT": {"price": "35250", "lot": "0.00001", **_CENTS},
    "ETH-USDT": {"price": "2500", "lot": "0.0001", **_CENTS},
    "ADA-USDT": {"price": "0.45", **_SMALL},
    "BNB-USDT": {"price": "300", "lot": "0.001", **_CENTS},
    "BTC-FDUSD": {"price": "35250", "lot": "0.00001", **_CENTS},
    "BTC-USDC": {"price": "35250", "lot": "0.00001", **_CENTS},
    "DOGE-USDT": {"price": "0.08", "tick": "0.00001", "lot": "1", "min_notional": "1", "max_quantity": "9000000"},
    "ETH-BTC": {"price": "0.07092", "tick": "0.00001", "lot": "0.0001", "min_notional": "0.0001", "depth_quote": "2"},
    "ETH-USDC": {"price": "2500", "lot": "0.0001", **_CENTS},
    "LTC-USDT": {"price": "70", "lot": "0.001", **_CENTS},
    "SOL-USDT": {"price": "100", "lot": "0.001", **_CENTS},
    "XRP-USDT": {"price": "0.6", **_SMALL},
}
"""The pairs of the catalogue (catalogue/exchanges/binance.yml), with its rules and invented prices."""
ACCOUNT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ASSET = re.compile(r"[A-Z0-9]{1,20}")
PAIR = re.compile(r"[A-Z0-9]{1,20}-[A-Z0-9]{1,20}")
API_KEY = re.compile(r"[A-Za-z0-9_-]{8,128}")
"""What Binance accepts as a key, and shorter ones for tests."""


@dataclass(frozen=True)
class Credentials:
    """Key and secret of an account. Its representation shows neither."""

    account: str
    api_key: str = field(repr=False)
    api_secret: str = field(repr=False)


@dataclass(frozen=True)
class AccountSpec:
    """An account as the accounts file or the control endpoint describes it."""

    credentials: Credentials
    balances: dict[str, Decimal]
    """Deposited once, when the exchange first sees the account."""
    maker_fee: Decimal | None = None
    taker_fee: Decimal | None = None
    """None: the exchange's own."""


@dataclass(frozen=True)
class Settings:
    """Everything the server is told."""

    pairs: tuple[PairRules, ...]
    host: str = "0.0.0.0"  # noqa: S104 - a container of its own, ports not published
    https_port: int = 443
    stream_port: int = 9443
    control_socket: Path = Path("/run/sandbox/control.sock")
    certificate: Path | None = None
    private_key: Path | None = None
    """Without certificate and key the public ports speak plain HTTP: for tests only."""
    accounts_file: Path | None = None
    state_dir: Path | None = None
    """Without it nothing survives a restart."""
    maker_fee: Decimal = ZERO
    taker_fee: Decimal = ZERO


def load_settings(path: Path) -> Settings:
    """Read the configuration file; ConfigError names the field that is wrong."""
    data = _mapping(_read_json(path), f"{path}")
    return parse_settings(data, where=str(path))


def parse_settings(data: Mapping[str, Any], *, where: str = "configuration") -> Settings:
    """Settings from plain values; paths are taken as they are."""
    known = {"host", "https_port", "stream_port", "control_socket", "tls", "accounts_file", "state_dir", "fees",
             "pairs"}
    _known_only(data, known, where)
    tls = _mapping(data.get("tls", {}), f"{where}: tls")
    _known_only(tls, {"certificate", "key"}, f"{where}: tls")
    if len(tls) == 1:
        raise ConfigError(f"{where}: tls needs both certificate and key.")
    fees = _mapping(data.get("fees", {}), f"{where}: fees")
    _known_only(fees, {"maker", "taker"}, f"{where}: fees")
    defaults = Settings(pairs=())
    pairs = _mapping(data.get("pairs", DEFAULT_PAIRS), f"{where}: pairs")
    if not pairs:
        raise ConfigError(f"{where}: pairs is empty; leave it out for {', '.join(DEFAULT_PAIRS)}.")
    return Settings(
        pairs=tuple(parse_pair(name, rules, where=f"{where}: pairs.{name}") for name, rules in pairs.items()),
        host=_text(data.get("host", defaults.host), f"{where}: host"),
        https_port=_port(data.get("https_port", defaults.https_port), f"{where}: https_port"),
        stream_port=_port(data.get("stream_port", defaults.stream_port), f"{where}: stream_port"),
        control_socket=Path(_text(data.get("control_socket", str(defaults.control_socket)),
                                  f"{where}: control_socket")),
        certificate=_path(tls.get("certificate"), f"{where}: tls.certificate"),
        private_key=_path(tls.get("key"), f"{where}: tls.key"),
        accounts_file=_path(data.get("accounts_file"), f"{where}: accounts_file"),
        state_dir=_path(data.get("state_dir"), f"{where}: state_dir"),
        maker_fee=fee_rate(fees.get("maker", "0"), f"{where}: fees.maker"),
        taker_fee=fee_rate(fees.get("taker", "0"), f"{where}: fees.taker"),
    )


def parse_pair(name: str, data: Any, *, where: str) -> PairRules:
    """A pair's rules: tick, lot, min_notional and price are needed, the rest has defaults."""
    if not PAIR.fullmatch(name):
        raise ConfigError(f"{where}: a pair is written BASE-QUOTE in capitals, such as BTC-USDT.")
    rules = _mapping(data, where)
    optional = {"spread_bps", "depth_levels", "depth_quote", "max_quantity", "max_price", "max_open_orders"}
    _known_only(rules, {"tick", "lot", "min_notional", "price", *optional}, where)
    base, quote = name.split("-")
    values: dict[str, Any] = {}
    for spec in fields(PairRules):
        if spec.name in ("base", "quote") or (spec.name in optional and spec.name not in rules):
            continue
        if spec.name not in rules:
            raise ConfigError(f"{where}: {spec.name} is missing.")
        number = decimal(rules[spec.name], f"{where}.{spec.name}")
        if number < 0 or (number == 0 and spec.name != "spread_bps"):
            raise ConfigError(f"{where}.{spec.name}: must be positive.")
        values[spec.name] = int(number) if spec.name in ("depth_levels", "max_open_orders") else number
    pair = PairRules(base=base, quote=quote, **values)
    if pair.price % pair.tick or not 2 * pair.tick <= pair.price <= pair.max_price:
        raise ConfigError(f"{where}.price: must be a multiple of the tick {pair.tick:f}, at most {pair.max_price:f}.")
    return pair


def load_accounts(path: Path) -> list[AccountSpec]:
    """The accounts file: {"accounts": [{name, api_key, api_secret, balances, maker_fee?, taker_fee?}]}.

    Only its owner may read it, for it holds secrets in clear.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"The accounts file {path} cannot be read: {error.strerror}.") from None
    if mode & 0o077:
        raise ConfigError(f"The accounts file {path} has mode {mode:04o}; make it 0400, it holds secrets.")
    data = _mapping(_read_json(path), str(path))
    _known_only(data, {"accounts"}, str(path))
    items = data.get("accounts")
    if not isinstance(items, list):
        raise ConfigError(f"{path}: accounts must be a list.")
    specs = [parse_account(item, where=f"{path}: accounts[{index}]") for index, item in enumerate(items)]
    check_distinct(specs, where=str(path))
    return specs


def check_distinct(specs: list[AccountSpec], *, where: str) -> None:
    """Refuse two accounts of one name or one key."""
    for what, values in (("name", [spec.credentials.account for spec in specs]),
                         ("api_key", [spec.credentials.api_key for spec in specs])):
        if len(set(values)) != len(values):
            raise ConfigError(f"{where}: two accounts have the same {what}.")


def parse_account(data: Any, *, where: str) -> AccountSpec:
    """One account; errors name the field but never its value."""
    item = _mapping(data, where)
    _known_only(item, {"name", "api_key", "api_secret", "balances", "maker_fee", "taker_fee"}, where)
    name = _text(item.get("name"), f"{where}.name")
    if not ACCOUNT_NAME.fullmatch(name):
        raise ConfigError(f"{where}.name: 1 to 64 letters, digits, dots, dashes, underscores.")
    api_key = _text(item.get("api_key"), f"{where}.api_key")
    if not API_KEY.fullmatch(api_key):
        raise ConfigError(f"{where}.api_key: 8 to 128 letters, digits, dashes, underscores.")
    api_secret = _text(item.get("api_secret"), f"{where}.api_secret")
    if not 8 <= len(api_secret) <= 256:
        raise ConfigError(f"{where}.api_secret: 8 to 256 characters.")
    rates = {key: fee_rate(item[key], f"{where}.{key}") for key in ("maker_fee", "taker_fee")
             if item.get(key) is not None}
    return AccountSpec(
        Credentials(name, api_key, api_secret),
        parse_balances(item.get("balances", {}), where=f"{where}.balances"),
        rates.get("maker_fee"), rates.get("taker_fee"),
    )


def parse_balances(data: Any, *, where: str) -> dict[str, Decimal]:
    """Asset to amount, none negative."""
    balances = {}
    for asset, value in _mapping(data, where).items():
        if not ASSET.fullmatch(asset):
            raise ConfigError(f"{where}: an asset is 1 to 20 capitals and digits.")
        amount = decimal(value, f"{where}.{asset}")
        if not 0 <= amount <= MAX_AMOUNT:
            raise ConfigError(f"{where}.{asset}: must be between 0 and {MAX_AMOUNT:f}.")
        balances[asset] = amount
    return balances


def fee_rate(value: Any, where: str) -> Decimal:
    """A fee as a fraction: 0.001 is 0.1 percent."""
    rate = decimal(value, where)
    if not 0 <= rate <= Decimal("0.1"):
        raise ConfigError(f"{where}: a fraction between 0 and 0.1; 0.1 percent is 0.001.")
    return rate


def decimal(value: Any, where: str) -> Decimal:
    """A finite number from text or an integer; floats are refused, for they are not exact."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or len(str(value)) > 40:
        raise ConfigError(f"{where}: write the number as text, such as \"0.01\".")
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ConfigError(f"{where}: is not a number.") from None
    if not number.is_finite() or abs(number.adjusted()) > 20:
        raise ConfigError(f"{where}: is not a usable number.")
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -12:
        raise ConfigError(f"{where}: has more than 12 decimals.")
    return number


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is not valid JSON.") from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: must be an object.")
    return value


def _known_only(data: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise ConfigError(f"{where}: unknown {', '.join(map(repr, unknown[:5]))}; "
                          f"known are {', '.join(sorted(known))}.")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: must be a text and not empty.")
    return value


def _path(value: Any, where: str) -> Path | None:
    return None if value is None else Path(_text(value, where))


def _port(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 65535:
        raise ConfigError(f"{where}: must be a port number.")
    return value
