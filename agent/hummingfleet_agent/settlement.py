"""Settling: cancel every own order, account for everything it did, and prove that none is left."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from .exchange import Exchange, ExchangeOrder
from .ledger import Ledger, OrderEntry
from .order_ids import OrderIdFactory

LOGGER = logging.getLogger("hummingfleet.settlement")

# An order that the exchange does not know counts as never arrived only after this time: a request that timed out here
# may still be on its way (Binance refuses requests older than 5 s).
ARRIVAL_SECONDS = 10.0
# How far before the ledger's memory to look for own orders, for clocks that differ.
SKEW_SECONDS = 120.0
LOOK_BACK_SECONDS = 30 * 24 * 3600.0
PARALLEL_REQUESTS = 5
ROUND_SECONDS = 60.0


@dataclass(frozen=True)
class Settlement:
    """How settling ended. ``open_orders``: own open orders last seen, -1 = never answered."""

    clean: bool
    open_orders: int
    problem: str = ""


async def settle(
    exchange: Exchange,
    ledger: Ledger,
    ids: OrderIdFactory,
    *,
    deadline: float | None,
    search_unknown: bool,
    give_up: Callable[[], bool] = lambda: False,
) -> Settlement:
    """Cancel and account until a query shows no own open order and every order of the ledger is final.

    ``deadline``: time.monotonic() at which to give up; None = never. ``search_unknown``: also look for own orders that
    the ledger does not know (it was restored from a backup). Retries with growing pauses while the exchange cannot be
    asked.
    """
    open_count, problem, pause, warned_at = -1, "", 0.5, 0.0
    while True:
        try:
            # A request without a network may hang for minutes.
            left = ROUND_SECONDS if deadline is None else min(ROUND_SECONDS, max(0.1, deadline - time.monotonic()))
            async with asyncio.timeout(left):
                if search_unknown:
                    await _adopt_unknown(exchange, ledger, ids)
                    search_unknown = False
                open_count = await _pass(exchange, ledger, ids)
            ledger.save_if_changed()
            if open_count == 0 and not ledger.unsettled():
                return Settlement(True, 0)
            problem = f"{open_count} own orders open, {len(ledger.unsettled())} not accounted for yet"
            pause = 0.5
        except asyncio.CancelledError:
            raise
        except Exception as error:  # whatever the connector raises: the answer is to ask again
            problem = f"{type(error).__name__}: {str(error)[:200]}"
            if time.monotonic() - warned_at > 60:
                warned_at = time.monotonic()
                LOGGER.warning("SETTLE_RETRY the exchange cannot be asked about own orders (%s); trying again", problem)
            pause = min(pause * 2, 15.0)
        now = time.monotonic()
        if give_up() or (deadline is not None and now >= deadline):
            return Settlement(False, open_count, problem)
        await asyncio.sleep(pause if deadline is None else max(0.05, min(pause, deadline - now)))


async def _pass(exchange: Exchange, ledger: Ledger, ids: OrderIdFactory) -> int:
    """One round; the number of own orders that were still open after it."""
    own = await _own_open(exchange, ledger, ids)
    if own:
        await _in_parallel([exchange.cancel(order.client_id) for order in own])
    await _in_parallel([conclude(exchange, ledger, entry) for entry in ledger.unsettled()])
    # Asked again after everything was cancelled and concluded: this answer is the proof.
    return len(await _own_open(exchange, ledger, ids))


async def _own_open(exchange: Exchange, ledger: Ledger, ids: OrderIdFactory) -> list[ExchangeOrder]:
    own = [
        order for order in await exchange.open_orders(ledger.unsettled())
        if order.client_id in ledger.orders or ids.parse(order.client_id)
    ]
    for order in own:
        entry = ledger.orders.get(order.client_id) or _adopt(ledger, ids, order)
        if entry.final:
            # Called final too early: it is open after all.
            entry.final = False
    return own


async def _adopt_unknown(exchange: Exchange, ledger: Ledger, ids: OrderIdFactory) -> None:
    """Account for own orders younger than the ledger's memory that it does not know."""
    oldest = max(time.time() - LOOK_BACK_SECONDS, ledger.watermark_us / 1e6 - SKEW_SECONDS)
    for order in await exchange.orders_since(oldest):
        parsed = ids.parse(order.client_id)
        if parsed is None or order.client_id in ledger.orders or parsed.nonce_us <= ledger.watermark_us:
            continue
        LOGGER.warning("ORDER_ADOPTED own order %s was not in the ledger; accounting for it", order.client_id)
        _adopt(ledger, ids, order)
        ledger.account(order.client_id, order.executed, final=not order.is_open)


def _adopt(ledger: Ledger, ids: OrderIdFactory, order: ExchangeOrder) -> OrderEntry:
    parsed = ids.parse(order.client_id)
    nonce = parsed.nonce_us if parsed else ledger.watermark_us + 1
    ids.raise_floor(nonce)
    return ledger.adopt_order(order.client_id, order.side, order.price, order.amount, nonce)


async def conclude(exchange: Exchange, ledger: Ledger, entry: OrderEntry) -> None:
    """Ask the exchange what became of an order and book it; final once it can execute no more."""
    order = await exchange.order(entry)
    if order is None:
        if time.time() - entry.created >= ARRIVAL_SECONDS:
            ledger.account(entry.client_id, entry.executed, final=True)
        return
    ledger.account(entry.client_id, order.executed, final=not order.is_open)


async def _in_parallel(requests: list) -> None:  # type: ignore[type-arg]
    """Run requests a few at a time; raises the first error after all have ended."""
    gate = asyncio.Semaphore(PARALLEL_REQUESTS)

    async def guarded(request: object) -> None:
        async with gate:
            await request  # type: ignore[misc]

    results = await asyncio.gather(*(guarded(request) for request in requests), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
