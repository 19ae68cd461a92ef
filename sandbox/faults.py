"""Faults on order: what goes wrong for whom, how often. Set through the control endpoint."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sandbox import errors
from sandbox.errors import ControlError, ExchangeError

MAX_SECONDS = 600.0


class FaultKind(StrEnum):
    """What can go wrong."""

    ERROR = "error"
    """Answered with an error (status, code, message: HTTP 500 and -1000 unless told) and not carried out."""
    UNAUTHORIZED = "unauthorized"
    """Answered 401, -2015."""
    INSUFFICIENT_BALANCE = "insufficient_balance"
    """New orders are answered -2010."""
    SLOW = "slow"
    """Carried out and answered `seconds` later."""
    LOST_REQUEST = "lost_request"
    """Not carried out; the connection ends without an answer."""
    LOST_RESPONSE = "lost_response"
    """Carried out; the connection ends without an answer, after `seconds`."""
    OUTCOME_UNKNOWN = "outcome_unknown"
    """Carried out; answered 503 as Binance does when it does not know."""
    THIN_BOOK = "thin_book"
    """Carried out; of an order at market half is filled, what is left expires: the book has no more."""
    OUTAGE = "outage"
    """Everything refuses: `mode` refuse (connections refused) or 503, until deleted."""


_OF_NEW_ORDERS = frozenset({FaultKind.INSUFFICIENT_BALANCE, FaultKind.THIN_BOOK})


@dataclass
class Fault:
    """One fault in effect."""

    id: int
    kind: FaultKind
    path: str = "*"
    """Pattern for the path, such as /api/v3/order."""
    method: str | None = None
    account: str | None = None
    count: int | None = None
    """Requests it still strikes; None: until deleted."""
    percent: float = 100.0
    seconds: float = 0.0
    status: int = 500
    code: int | None = None
    message: str | None = None
    mode: str = "refuse"
    seed: int = 0
    hits: int = 0
    dice: random.Random = field(default_factory=random.Random, repr=False)

    def strikes(self, method: str, path: str, account: str | None) -> bool:
        """Whether it strikes this request; counts down and rolls the dice."""
        if self.kind is FaultKind.OUTAGE or self.count == 0:
            return False
        if self.kind in _OF_NEW_ORDERS and (method, path) != ("POST", "/api/v3/order"):
            return False
        if not fnmatch.fnmatchcase(path, self.path) or (self.method is not None and self.method != method):
            return False
        if self.account is not None and self.account != account:
            return False
        if self.percent < 100 and self.dice.random() * 100 >= self.percent:
            return False
        if self.count is not None:
            self.count -= 1
        self.hits += 1
        return True

    def error(self) -> ExchangeError:
        """The refusal of the kinds that refuse."""
        if self.kind is FaultKind.UNAUTHORIZED:
            return errors.bad_key()
        if self.kind is FaultKind.INSUFFICIENT_BALANCE:
            return errors.insufficient_balance()
        if self.kind is FaultKind.OUTCOME_UNKNOWN:
            return errors.outcome_unknown()
        known = {429: errors.too_many_requests, 401: errors.bad_key, 503: errors.service_unavailable}
        usual = known.get(self.status, errors.unknown_error)()
        return ExchangeError(self.code if self.code is not None else usual.code,
                             self.message if self.message is not None else usual.message, self.status)

    def plain(self) -> dict[str, Any]:
        """For the control endpoint."""
        return {"id": self.id, "kind": self.kind.value, "path": self.path, "method": self.method,
                "account": self.account, "remaining": self.count, "percent": self.percent, "seconds": self.seconds,
                "status": self.status, "code": self.code, "message": self.message, "mode": self.mode,
                "seed": self.seed, "hits": self.hits}


REFUSING = frozenset({FaultKind.ERROR, FaultKind.UNAUTHORIZED, FaultKind.INSUFFICIENT_BALANCE})


class FaultPlan:
    """The faults in effect, oldest first; the first that strikes a request decides."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._next_id = 1

    def add(self, data: Mapping[str, Any]) -> Fault:
        """A fault from the control request's fields; ControlError says which field is wrong."""
        fields: dict[str, Any] = dict(data)
        try:
            kind = FaultKind(fields.pop("kind", ""))
        except ValueError:
            raise ControlError(f"kind: one of {', '.join(FaultKind)}.") from None
        fault = Fault(self._next_id, kind)
        checks: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
            "path": (str, lambda v: v.startswith(("/", "*")) and len(v) <= 200, "a path pattern such as /api/v3/order"),
            "method": (str, lambda v: v in ("GET", "POST", "DELETE"), "GET, POST or DELETE"),
            "account": (str, lambda v: len(v) <= 64, "an account's name"),
            "count": (int, lambda v: 1 <= v <= 1_000_000, "a number of requests, 1 or more"),
            "percent": ((int, float), lambda v: 0 < v <= 100, "a share of requests, more than 0, at most 100"),
            "seconds": ((int, float), lambda v: 0 <= v <= MAX_SECONDS, f"0 to {MAX_SECONDS:.0f}"),
            "status": (int, lambda v: 400 <= v <= 599, "an HTTP status from 400 to 599"),
            "code": (int, lambda v: -99999 <= v <= 0, "a Binance code such as -1000"),
            "message": (str, lambda v: len(v) <= 500, "at most 500 characters"),
            "mode": (str, lambda v: v in ("refuse", "503"), "refuse or 503"),
            "seed": (int, lambda v: True, "an integer"),
        }
        for name, value in fields.items():
            if name not in checks:
                raise ControlError(f"{name}: unknown; known are kind, {', '.join(checks)}.")
            if value is None:
                continue
            types, valid, wanted = checks[name]
            if isinstance(value, bool) or not isinstance(value, types) or not valid(value):
                raise ControlError(f"{name}: must be {wanted}.")
            setattr(fault, name, value)
        fault.dice.seed(fault.seed)
        self._next_id += 1
        self.faults.append(fault)
        return fault

    def remove(self, fault_id: int | None = None) -> list[Fault]:
        """Remove one fault or all; returns those removed."""
        gone = [fault for fault in self.faults if fault_id in (None, fault.id)]
        if fault_id is not None and not gone:
            raise ControlError(f"There is no fault {fault_id}; GET /faults lists them.", 404)
        self.faults = [fault for fault in self.faults if fault not in gone]
        return gone

    def outage(self) -> str | None:
        """The mode of the outage in effect, None when the exchange is up."""
        return next((fault.mode for fault in self.faults if fault.kind is FaultKind.OUTAGE), None)

    def strike(self, method: str, path: str, account: str | None) -> Fault | None:
        """The fault that strikes this request, if any."""
        return next((fault for fault in self.faults if fault.strikes(method, path, account)), None)
