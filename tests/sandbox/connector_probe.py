# mypy: ignore-errors
"""Runs inside the engine's container: the unmodified Binance connector does what each line on standard input says.

The first line holds key and secret. Then `buy AMOUNT PRICE`, `market AMOUNT`, `cancel ORDER`, `wait EVENT ORDER`;
each is answered by one line of JSON.
"""

import asyncio
import json
import logging
import sys
from decimal import Decimal

from hummingbot.connector.exchange.binance.binance_exchange import BinanceExchange
from hummingbot.core.clock import Clock, ClockMode
from hummingbot.core.data_type.common import OrderType
from hummingbot.core.event.event_forwarder import EventForwarder
from hummingbot.core.event.events import MarketEvent

PAIR = "BTC-USDT"
EVENTS = (MarketEvent.BuyOrderCreated, MarketEvent.OrderFilled, MarketEvent.BuyOrderCompleted,
          MarketEvent.OrderCancelled, MarketEvent.OrderFailure)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.05)


async def arrival(seen, what):
    await until(lambda: what in seen)
    return seen[what]


async def main():
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    key, secret = json.loads(sys.stdin.readline())
    exchange = BinanceExchange(key, secret, trading_pairs=[PAIR])
    seen = {}
    forwarders = []
    for event in EVENTS:
        forwarder = EventForwarder(lambda data, name=event.name: seen.update({(name, data.order_id): data}))
        forwarders.append(forwarder)
        exchange.add_listener(event, forwarder)
    clock = Clock(ClockMode.REALTIME, tick_size=1.0)
    clock.add_iterator(exchange)

    async def tick():
        with clock as running:
            await running.run()

    ticking = asyncio.create_task(tick())
    await until(lambda: exchange.ready)
    answer = {"ready": True}
    while True:
        answer["balances"] = {name: str(amount) for name, amount in exchange.get_all_balances().items()}
        print(json.dumps(answer), flush=True)
        words = (await asyncio.to_thread(sys.stdin.readline)).split()
        if not words:
            break
        if words[0] == "buy":
            answer = {"order": exchange.buy(PAIR, Decimal(words[1]), OrderType.LIMIT, Decimal(words[2]))}
        elif words[0] == "market":
            answer = {"order": exchange.buy(PAIR, Decimal(words[1]), OrderType.MARKET, Decimal("NaN"))}
        elif words[0] == "cancel":
            answer = {"order": exchange.cancel(PAIR, words[1])}
        else:
            data = await arrival(seen, (words[1], words[2]))
            answer = {"price": str(getattr(data, "price", "")), "amount": str(getattr(data, "amount", ""))}
    ticking.cancel()
    await exchange.stop_network()


asyncio.run(main())
