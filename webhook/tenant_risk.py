# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tenant's bots lost together today, whether that is too much, and the document that stops them.

Bots report the result of their UTC day with every heartbeat. The last report of each counts for as long as that day
lasts: also of a bot that has stopped, restarts, or was deleted since. Amounts are US dollars; bots whose pair is quoted
in anything that is not worth one are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.hummingfleet.core.plugins.module_utils.risk import USD_ASSETS
from ansible_collections.hummingfleet.core.plugins.module_utils.risk_halt import day_of, ends_at, is_of_today, stands

from .changes import Change, Document

if TYPE_CHECKING:
    from ansible_collections.hummingfleet.core.plugins.module_utils.catalogue import Catalogue

LIMIT: Final = "max_daily_loss_usd"
NEAR: Final = Decimal("0.5")
"""The part of the allowed loss from which on the tenant is looked at more often."""
_LARGEST: Final = Decimal(10) ** 10  # nobody's result; what is larger is no report
_CENTS: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class DailyRisk:
    """A tenant's UTC day: its bots' result (negative: a loss), what they may lose (None: anything), what follows.

    ``allowed`` is the loss at which they are stopped: the limit, or after a halt was lifted the loss at that halt and
    the limit once more. ``reached``: they are to be stopped now; ``near``: they are worth looking at more often.
    """

    day: str
    pnl_usd: Decimal
    limit_usd: Decimal | None
    allowed: Decimal | None
    reached: bool
    near: bool

    def plain(self, document: Document, now: float) -> dict[str, Any]:
        """As JSON-plain data for the status API; ``halt`` is the document's, as long as its day lasts."""
        halt = document.get("risk_halt") if is_of_today(document.get("risk_halt"), now) else None
        return {
            "day": self.day,
            "pnl_usd": _text(self.pnl_usd),
            "limit_usd": None if self.limit_usd is None else _text(self.limit_usd),
            "halt": None if halt is None else {"lifted_at": None, **halt, "until": ends_at(halt["day"])},
        }


@dataclass(frozen=True, slots=True)
class RiskHalt:
    """A halt as it stands in a tenant's document."""

    limit: str
    day: str
    value: float
    threshold: float
    at: str

    def change(self) -> Change:
        """Every running bot is stopped: orders cancelled, position kept. None is started for the rest of the day."""

        def change(document: Document) -> dict[str, Any]:
            bots = [{**bot, "state": "stopped"} if _runs(bot) else bot for bot in document.get("bots", ())]
            return {**document, "bots": bots, "risk_halt": asdict(self)}

        return change

    @property
    def until(self) -> str:
        """When bots can be started again, ISO 8601."""
        return ends_at(self.day)

    def sentence(self) -> str:
        """Why, for the tenant's history."""
        return (
            f"the bots lost {self.value:.2f} US dollars on {self.day} and {self.threshold:.2f} are allowed: "
            f"all are stopped until {self.until}"
        )


def judge(document: Document, facts: Iterable[Mapping[str, Any]], catalogue: Catalogue, now: float) -> DailyRisk:
    """The tenant's day at ``now`` (epoch seconds), from the last ``facts`` of its bots."""
    day = day_of(now)
    result = sum((pnl_of(one, day) for one in facts), Decimal(0))
    limit = limit_of(document, catalogue)
    if limit is None:
        return DailyRisk(day, result, None, None, reached=False, near=False)
    halt = document.get("risk_halt") if is_of_today(document.get("risk_halt"), now) else None
    lifted = halt is not None and not stands(halt)
    allowed = limit + (Decimal(str(halt["value"])) if halt is not None and lifted else 0)
    active = document.get("state") != "terminated" and (halt is None or lifted)
    reached = active and -result >= allowed
    near = active and not reached and -result > allowed - limit * (1 - NEAR)
    return DailyRisk(day, result, limit, allowed, reached=reached, near=near)


def halt_of(risk: DailyRisk, at: str) -> RiskHalt:
    """The halt that a day which has ``reached`` its limit comes to; ``at`` is the time as ISO 8601."""
    assert risk.allowed is not None
    return RiskHalt(LIMIT, risk.day, _number(-risk.pnl_usd), _number(risk.allowed), at)


def limit_of(document: Document, catalogue: Catalogue) -> Decimal | None:
    """What the tenant's bots may lose in a day, in US dollars: its own limit or else its plan's; None: anything."""
    own = (document.get("risk") or {}).get(LIMIT)
    if own is not None:
        return Decimal(str(own))
    plan = catalogue.plans.get(document.get("plan", ""))
    return plan.tenant_max_daily_loss_usd if plan is not None else None


def pnl_of(facts: Mapping[str, Any], day: str) -> Decimal:
    """What a bot's last facts say of its result on ``day``, in US dollars; 0 if they are of another day or asset."""
    risk = _report(facts, day)
    return Decimal(0) if risk is None or risk["day"] != day else _dollars(risk)


def remember(
    before: Mapping[str, Any] | None, facts: Mapping[str, Any], today: str, *, anew: bool = False
) -> dict[str, Any]:
    """``facts`` of a bot as they are stored: with what they do not say and those ``before`` said of its day and halt.

    A bot that restarts reports nothing for a while, and one that is resumed counts its day anew; neither is forgiven
    what it lost. So ``counted_pnl`` is added to its report, the result since the first report of the day: the bot's
    whole result less ``start_pnl``. A bot that goes to another market begins from nothing there; ``earlier_usd`` is
    what its day came to before, in US dollars. ``anew``: it is another bot under the id of one that was deleted. A
    report of a day after ``today`` is none: its clock is wrong.
    """
    kept = dict(facts)
    if facts.get("heartbeat_age_seconds") is None and not anew and (before or {}).get("halted"):
        kept["halted"] = (before or {})["halted"]
    old, new = (_report(one, today) for one in (before or {}, facts))
    if new is None or (old is not None and new["day"] < old["day"]):
        if old is not None:
            kept["risk"] = {"day": old["day"], "earlier_usd": str(_dollars(old))} if anew else old
        return kept
    pnl, counted, earlier = _decimal(new.get("pnl")), _amount(new["day_pnl"]), Decimal(0)
    if old is not None and old["day"] == new["day"]:
        start = _decimal(old.get("start_pnl"))
        if anew or _moved(old, new):
            earlier = _dollars(old)
        else:
            earlier = _amount(old.get("earlier_usd"))
            counted = pnl - start if start is not None and pnl is not None else counted
    kept["risk"] = {**new, "counted_pnl": str(counted), "earlier_usd": str(earlier)}
    if pnl is not None:
        kept["risk"]["start_pnl"] = str(pnl - counted)
    return kept


def _moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two reports are of different markets. Bots of older releases do not say theirs."""
    known = old.get("market") is not None and new.get("market") is not None
    return old.get("quote") != new.get("quote") or (known and old["market"] != new["market"])


def _report(facts: Mapping[str, Any], today: str) -> dict[str, Any] | None:
    """What is known of a bot's last day until ``today``, None if that is nothing."""
    risk = facts.get("risk")
    if not isinstance(risk, Mapping) or not isinstance(risk.get("day"), str) or risk["day"] > today:
        return None
    amounts = ("day_pnl", "counted_pnl", "earlier_usd")
    return dict(risk) if any(_decimal(risk.get(name)) is not None for name in amounts) else None


def _dollars(risk: Mapping[str, Any]) -> Decimal:
    """What a bot's day came to, in US dollars; what it did against assets that are not worth one counts nothing."""
    own = _amount(risk.get("counted_pnl", risk.get("day_pnl"))) if risk.get("quote") in USD_ASSETS else Decimal(0)
    return own + _amount(risk.get("earlier_usd"))


def _amount(value: object) -> Decimal:
    return _decimal(value) or Decimal(0)


def _decimal(value: object) -> Decimal | None:
    """A bot's number; None for what is none, is not finite, or is larger than any money."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number) < _LARGEST else None


def _number(value: Decimal) -> float:
    return float(value.quantize(_CENTS, ROUND_HALF_EVEN))


def _text(value: Decimal) -> str:
    return f"{value.quantize(_CENTS, ROUND_HALF_EVEN):f}"


def _runs(bot: Mapping[str, Any]) -> bool:
    return bool(bot.get("state", "running") == "running")
