# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A trading signal from outside: what its body says, and whether the bot it is for may have it now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, cast, get_args

from ansible_collections.hummingfleet.core.plugins.module_utils.errors import Fault, FaultsError, HummingfleetError
from ansible_collections.hummingfleet.core.plugins.module_utils.risk_halt import stands
from ansible_collections.hummingfleet.core.plugins.module_utils.strategies import TEMPLATES

from .text import read_time

Action = Literal["buy", "sell", "close"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

MAX_BODY_BYTES: Final = 8192
AHEAD_SECONDS: Final = 10.0
"""How far in the future ``sent_at`` may lie: clocks differ."""

EXPIRY_SECONDS: Final = 1.0
"""How much longer than its answer is waited for a signal may be traded: the answer needs time to come back."""

_ID_CHARACTERS = 128
_SIZE_MAX, _SIZE_DECIMALS = Decimal(10) ** 12, 8
_AGE = "max_signal_age_s"  # the strategy's field that says how old signals may be
_EPOCH_MAX = 1e11  # later than any moment; milliseconds are above it
_FIELDS = ("bot", "token", "id", "action", "size_quote", "sent_at")

_EXAMPLE_TOKEN = "hfs_0123456789ab_" + 43 * "x"
BODY_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "A signal for one bot.",
    "properties": {
        "bot": {"type": "string", "description": "The bot's id; it has to be the token's."},
        "token": {"type": "string", "description": "The bot's signal token. Left out where the request is signed."},
        "id": {
            "type": "string",
            "minLength": 1,
            "maxLength": _ID_CHARACTERS,
            "description": "Names the signal; one that comes again is not traded again. Printable characters. "
            "It may be left out where the request is signed: then it is the header `webhook-id`.",
        },
        "action": {
            "type": "string",
            "enum": list(ACTIONS),
            "description": "buy and sell at market; close sells all that the bot holds.",
        },
        "size_quote": {
            "anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": float(_SIZE_MAX)}, {"type": "null"}],
            "description": "How much to buy or sell, in the quote asset, at most 8 decimals. Without it a buy has the "
            "bot's `order_amount`. Not for close.",
        },
        "sent_at": {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "number", "exclusiveMinimum": 0}],
            "description": "When it was sent: ISO 8601 with zone, or seconds since 1970.",
        },
    },
    "required": ["bot", "action", "sent_at"],
    "additionalProperties": False,
}
EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "buy": {
        "bot": "b1",
        "token": _EXAMPLE_TOKEN,
        "id": "BTCUSDT-2026-11-23T05:00:00Z-buy",
        "action": "buy",
        "size_quote": 100,
        "sent_at": "2026-11-23T05:00:00Z",
    },
    "close": {
        "bot": "b1",
        "token": _EXAMPLE_TOKEN,
        "id": "BTCUSDT-2026-11-23T06:00:00Z-close",
        "action": "close",
        "sent_at": 1795413600,
    },
}


class SignalError(FaultsError):
    """The body of a signal was refused; ``faults`` has one entry per field and problem."""

    subject = "the signal is refused"


class SignalRefusedError(HummingfleetError):
    """The bot cannot or will not trade the signal; ``code`` says why for programs."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StaleSignalError(HummingfleetError):
    """The signal was sent too long ago, or in the future."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal as it was sent. ``size_quote`` is in the quote asset, ``sent_at`` in epoch seconds."""

    bot: str
    id: str
    action: Action
    size_quote: Decimal | None
    sent_at: float

    @property
    def digest(self) -> str:
        """SHA-256 of what it says: equal for the same signal, however it is written and with whichever token."""
        said = [self.bot, self.id, self.action, _text(self.size_quote), self.sent_at]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def message(self, expires_at: float) -> dict[str, Any]:
        """What its bot is told; after ``expires_at`` (epoch seconds) it does not trade it."""
        return {
            "id": self.id,
            "action": self.action,
            "size_quote": _text(self.size_quote),
            "sent_at": self.sent_at,
            "expires_at": expires_at,
        }


@dataclass(frozen=True, slots=True)
class Receiver:
    """The bot that a signal is for, as the registry has it.

    ``takes_signals`` is whether its strategy does at all, ``obstacle`` why the bot does not now (None: it does), and
    ``max_age_seconds`` how old they may be.
    """

    node: str
    takes_signals: bool
    obstacle: SignalRefusedError | None
    max_age_seconds: float


# --- reading ---------------------------------------------------------------------------------------------------------


def parse_signal(data: Mapping[str, Any], bot: str, default_id: str | None = None) -> Signal:
    """The signal in a body for ``bot`` (whose token came with it); raises SignalError with every fault.

    ``default_id`` is that of a signed request: the body's has to agree and may be missing. Values are not repeated in
    faults: a token can stand in any of them by mistake.
    """
    faults = list(_unknown(data))
    bots = _read(data, "bot", lambda value: _bot(value, bot), faults)
    signal_id = default_id
    if default_id is None or "id" in data:
        signal_id = _read(data, "id", lambda value: _id(value, default_id), faults)
    action = _read(data, "action", _action, faults)
    size = None
    if data.get("size_quote") is not None:
        size = _read(data, "size_quote", lambda value: _size(value, action), faults)
    sent_at = _read(data, "sent_at", _moment, faults)
    if faults:
        raise SignalError(faults)
    return Signal(cast(str, bots), cast(str, signal_id), cast(Action, action), size, cast(float, sent_at))


class _NotAllowedError(ValueError):
    """A value is refused: what is wrong, and what is allowed."""


def _read(data: Mapping[str, Any], name: str, read: Any, faults: list[Fault]) -> Any:
    try:
        return read(data.get(name))
    except _NotAllowedError as error:
        problem, allowed = error.args
        if name not in data:
            problem = "is missing"
        faults.append(Fault(f"/{name}", problem, allowed, f"signal.{name}"))
        return None


def _unknown(data: Mapping[str, Any]) -> Iterator[Fault]:
    unknown = [name for name in data if name not in _FIELDS]
    if unknown:
        yield Fault("", f"{len(unknown)} unknown key(s)", ", ".join(_FIELDS), "signal.unknown")


def _bot(value: Any, bot: str) -> str:
    if value != bot:
        raise _NotAllowedError("is not the bot that the token is for", "the id of that bot")
    return bot


def _id(value: Any, signed: str | None) -> str:
    allowed = f"1 to {_ID_CHARACTERS} printable characters"
    if not isinstance(value, str) or not 1 <= len(value) <= _ID_CHARACTERS or not value.isprintable():
        raise _NotAllowedError("is no id", allowed)
    if signed is not None and value != signed:
        raise _NotAllowedError("is not the id that was signed", "that of the header webhook-id, or none")
    return value


def _action(value: Any) -> Action:
    if not isinstance(value, str) or value not in ACTIONS:
        raise _NotAllowedError("is no action", ", ".join(ACTIONS))
    return value


def _size(value: Any, action: Action | None) -> Decimal:
    allowed = f"a number above 0, up to {_SIZE_MAX:f}, with at most {_SIZE_DECIMALS} decimals"
    if action == "close":
        raise _NotAllowedError("is there although close sells all", "nothing")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _SIZE_MAX:
        raise _NotAllowedError("is no size", allowed)
    size = Decimal(str(value))
    if round(size, _SIZE_DECIMALS) != size:
        raise _NotAllowedError("has too many decimals", allowed)
    return size.normalize()


def _moment(value: Any) -> float:
    allowed = "ISO 8601 with zone, such as 2026-11-23T05:00:00Z, or seconds since 1970"
    if isinstance(value, str):
        try:
            return read_time(value).timestamp()
        except ValueError:
            raise _NotAllowedError("is no time", allowed) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise _NotAllowedError("is no time", allowed)
    if value >= _EPOCH_MAX:
        raise _NotAllowedError("is no time in seconds; milliseconds have to be divided by 1000", allowed)
    return float(value)


def _text(size: Decimal | None) -> str | None:
    return None if size is None else f"{size:f}"


# --- judging ---------------------------------------------------------------------------------------------------------


def receiver(node: str, document: Mapping[str, Any], bot: str) -> Receiver:
    """What a tenant's stored document says about its bot as a receiver of signals."""
    found: Mapping[str, Any] = next((one for one in document.get("bots", ()) if one.get("id") == bot), {})
    template = TEMPLATES.get(found.get("strategy_template", ""))
    takes_signals = template is not None and template.needs_broker
    age = 0.0
    if template is not None and takes_signals:
        age = float(found.get("strategy_config", {}).get(_AGE, template.fields[_AGE].default))
    return Receiver(node, takes_signals, _obstacle(document, found, takes_signals), age)


def _obstacle(document: Mapping[str, Any], bot: Mapping[str, Any], takes_signals: bool) -> SignalRefusedError | None:
    if not bot:
        return SignalRefusedError("no_bot", "the bot is not there any more")
    state = document.get("state", "active")
    if state != "active":
        return SignalRefusedError(f"tenant_{state}", f"the bot's tenant is {state}")
    if not takes_signals:
        return SignalRefusedError("no_signals", "the bot's strategy takes no signals")
    if stands(document.get("risk_halt")):
        return SignalRefusedError("risk_halt", "the tenant's bots are stopped: a risk limit of the tenant was reached")
    wanted = bot.get("state", "stopped")
    return None if wanted == "running" else SignalRefusedError(f"bot_{wanted}", f"the bot is {wanted}")


def check_age(signal: Signal, now: float, max_age_seconds: float) -> None:
    """Nothing if the signal was sent recently; raises StaleSignalError. ``now`` is in epoch seconds."""
    age = now - signal.sent_at
    if age > max_age_seconds:
        raise StaleSignalError(
            f"the signal was sent {_seconds(age)} ago; the bot trades none that is older than "
            f"{_seconds(max_age_seconds)} (its field max_signal_age_s)"
        )
    if age < -AHEAD_SECONDS:
        raise StaleSignalError(
            f"the signal was sent {_seconds(-age)} in the future, and more than {_seconds(AHEAD_SECONDS)} is refused: "
            "set the sender's clock"
        )


def expiry(signal: Signal, received_at: float, ack_seconds: float, max_age_seconds: float) -> float:
    """When its bot may trade it no more (epoch seconds): soon after its answer is no longer waited for."""
    return min(received_at + ack_seconds + EXPIRY_SECONDS, signal.sent_at + max_age_seconds)


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s"
