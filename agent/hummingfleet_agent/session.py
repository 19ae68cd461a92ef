"""One run of the launcher: run, settle or liquidate, from the first file read to the last record written."""

import asyncio
import fcntl
import hashlib
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

from . import engine
from . import runtime as shared
from .errors import EXIT_EXCHANGE, EXIT_OK, ConfigurationError, ExchangeError
from .exchange import Exchange, exchange_for, sellable
from .ledger import Intent, Ledger
from .order_ids import OrderIdFactory
from .planning import text
from .records import Lifecycle
from .runtime import Runtime
from .settings import BotSettings, Home, populate_conf, read_password
from .settlement import Settlement, settle

T = TypeVar("T")
LOGGER = logging.getLogger("hummingfleet.session")

HEARTBEAT_SECONDS = 2.0
# A stop must end within the container's grace period of 60 s.
STOP_SECONDS = 45.0
ENGINE_STOP_SECONDS = 25.0
# Between attempts to cancel and sell what a halted bot still has.
HALT_RETRY_SECONDS = 5.0
# The last part of a stop belongs to the proof.
SETTLE_AT_LEAST_SECONDS = 15.0


class Session:
    """Everything one run of the launcher does."""

    def __init__(self, mode: str, *, timeout_seconds: float = 60.0, home: Home | None = None,
                 stop_requested: bool = False) -> None:
        self.mode = mode
        self.timeout_seconds = timeout_seconds
        self.home = home or Home()
        self.stop_requested = stop_requested
        self.stop_event: asyncio.Event | None = None
        self.deadline: float | None = None
        self.record: Lifecycle | None = None
        self._lock: Any = None
        self._loop_runs = False

    # -- beginning

    def run(self) -> int:
        """Do it; returns the exit code. Raises AgentError."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_early_signal)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        self.settings = BotSettings.load(self.home)
        self._take_lock()
        self.before = Lifecycle.load(self.home.lifecycle_path)
        if self.stop_requested:
            self._on_early_signal(signal.SIGTERM, None)
        ledger = Ledger.load(self.home.ledger_path)
        ledger.claim_market(
            f"{self.settings.connector} {self.settings.trading_pair} (connection {self.settings.connection})")
        ids = OrderIdFactory(self.settings.order_tag, ledger.newest_nonce_us())
        self.state = Runtime(self.home, self.settings, ledger, ids)
        self.state.config_digest = self._live_digest()
        shared.current = self.state
        self.state.lift_halt_if_resumed()
        beat = threading.Thread(target=self._beat_until_loop_runs, daemon=True)
        beat.start()
        try:
            populate_conf(self.home, self.settings.broker if self.mode == "run" else None)
            password = read_password(self.home)
            self.state.engine_version = engine.import_engine(self.home)
            engine.patch_order_ids(ids, self.state.record_order)
            # Not asyncio.run: it would wait at the end for threads that hang in a name look-up.
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            return loop.run_until_complete(self._main(password))
        finally:
            self._loop_runs = True
            beat.join()

    def _take_lock(self) -> None:
        """Two runs must never trade on one ledger; the lock ends with the process, however it ends."""
        self._lock = (self.home.data_dir / ".agent.lock").open("w", encoding="ascii")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"another process works with the data of bot {self.settings.bot}; stop its container first") from None

    def _live_digest(self) -> str:
        try:
            return hashlib.sha256((self.home.config_dir / self.settings.live_file).read_bytes()).hexdigest()
        except OSError:
            raise ConfigurationError(f"{self.settings.live_file} is missing; converge the tenant again") from None

    def _on_early_signal(self, number: int, frame: object) -> None:
        self.stop_requested = True
        before = getattr(self, "before", None)
        if self.mode == "run" and before is not None and not before.needs_settling:
            # Nothing was sent and nothing is open: end at once instead of after the imports.
            os._exit(EXIT_OK)

    def _beat_until_loop_runs(self) -> None:
        while not self._loop_runs:
            self.state.heartbeat()
            time.sleep(0.5)

    # -- in the event loop

    async def _main(self, password: str) -> int:
        self.stop_event = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        self._loop_runs = True
        if self.stop_requested:
            self._on_stop_signal()
        heart = asyncio.create_task(self._beat())
        try:
            self.application = await engine.open_engine(self.home, self.settings, password)
            engine.patch_order_sending(
                self.settings.connector, self.state.admit, self.state.ledger.number_order)
            self.exchange = self._exchange(engine.make_connector(self.application, self.settings))
            if self.mode == "run":
                return await self._run()
            return await self._settle_only(liquidate=self.mode == "liquidate")
        finally:
            heart.cancel()
            self.state.strategy_running = False
            self.state.heartbeat()

    def _on_stop_signal(self) -> None:
        if self.deadline is None:
            LOGGER.info("STOP_REQUESTED cancelling own orders, keeping the position")
            self.deadline = time.monotonic() + STOP_SECONDS
        self.stop_requested = True
        if self.stop_event is not None:
            self.stop_event.set()

    async def _beat(self) -> None:
        while True:
            try:
                self.state.heartbeat()
            except OSError as error:
                LOGGER.error("HEARTBEAT cannot be written: %s", error)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _exchange(self, connector: Any) -> Exchange:
        return exchange_for(connector, self.settings.trading_pair, lambda item: self.state.ids.parse(item) is not None)

    async def _settle(self, *, deadline: float | None, search_unknown: bool) -> Settlement:
        """Settle; in run mode a stop request gives it a deadline while it waits for the exchange."""
        def give_up() -> bool:
            return self.deadline is not None and time.monotonic() >= self.deadline

        return await settle(self.exchange, self.state.ledger, self.state.ids, deadline=deadline,
                            search_unknown=search_unknown, give_up=give_up)

    def _write_lifecycle(self, state: str, settlement: Settlement, reason: str, dust: Decimal = Decimal(0)) -> None:
        self.record = Lifecycle(
            state=state, clean=settlement.clean, verified=self.exchange.verified, open_orders=settlement.open_orders,
            position_base=text(self.state.ledger.base), at=time.time(), reason=reason, dust_base=text(dust))
        self.record.write(self.home.lifecycle_path)

    # -- run

    async def _run(self) -> int:
        state = self.state
        # A ledger that is gone although the bot has run before makes a clean record worthless.
        unclean = self.before is None or self.before.needs_settling or state.ledger.is_new
        if unclean and self.before is not None:
            LOGGER.warning("UNCLEAN_START the last run did not end cleanly; settling before trading")
        # After a clean stop, too: the data may have been restored from a backup since.
        state.phase = "settling"
        settlement = await self._settle_until_stopped()
        if not settlement.clean:
            if not unclean:
                return EXIT_OK
            LOGGER.error("SETTLE_UNFINISHED stopped before own orders were settled: %s", settlement.problem)
            self._write_lifecycle("stopped", settlement, "stopped before settling ended")
            return EXIT_EXCHANGE
        state.ledger.save()
        LOGGER.info("SETTLED own orders: 0, position %s %s", text(state.ledger.base), self.settings.base_asset)
        self._write_lifecycle("stopped", settlement, "settled at the start")
        if self.stop_requested:
            return EXIT_OK
        if self.settings.kind == "v2" and state.ledger.base < 0:
            raise ConfigurationError(
                f"the bot sold {text(-state.ledger.base)} {self.settings.base_asset} more than it bought, as a market "
                "maker may; whatever it buys could not be sold again. Liquidate it first, which writes that off")
        if self.settings.kind == "v1" and state.ledger.halt is not None:
            # The engine's own strategies know no halt: it is not started.
            return await self._stay_halted()
        self._write_lifecycle("running", Settlement(False, -1), "trading")
        state.accepting = True
        state.phase = "starting"
        self._answer_status()
        starting = asyncio.create_task(engine.start_strategy(self.application, self.settings))
        try:
            while not starting.done() and not self.stop_requested:
                await self._first(asyncio.sleep(0.5), starting, self._stopped())
                self._follow_connector()
            if starting.done():
                await starting  # raises what it raised
                engine.write_bot_files(self.settings, self.application)
                await self._trade()
        except Exception:
            self.deadline = self.deadline or time.monotonic() + STOP_SECONDS
            await self._stop("stopped by an error")
            raise
        finally:
            if not starting.done():
                starting.cancel()
        return await self._stop("stopped on request")

    async def _settle_until_stopped(self) -> Settlement:
        """Settle for as long as it takes; a stop request leaves it its deadline but not for an unreachable exchange."""
        task = asyncio.create_task(self._settle(deadline=None, search_unknown=self.before is not None))
        while not task.done():
            await asyncio.wait({task}, timeout=0.5)
            if self.stop_requested and not task.done():
                # One more try of bounded length: orders may be open.
                limit = max(0.0, (self.deadline or 0.0) - time.monotonic())
                await asyncio.wait({task}, timeout=limit)
                if not task.done():
                    task.cancel()
                    return Settlement(False, -1, "the exchange could not be asked")
        return task.result()

    async def _stopped(self) -> None:
        assert self.stop_event is not None
        await self.stop_event.wait()

    @staticmethod
    async def _first(*waits: Awaitable[Any]) -> None:
        """Wait until one of them ended; waits that were started here end with it, tasks go on."""
        tasks = {asyncio.ensure_future(wait): isinstance(wait, asyncio.Task) for wait in waits}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task, foreign in tasks.items():
            if not foreign:
                task.cancel()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The work's result; None where a stop was requested meanwhile: requests may hang, a stop may not."""
        task = asyncio.create_task(work)
        await self._first(task, self._stopped())
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task}, timeout=2)
        return None

    def _follow_connector(self) -> None:
        """Keep hold of the running strategy's connector from the moment there is one."""
        connector = self.application.trading_core.connectors.get(self.settings.connector)
        if connector is not None and self.state.connector is None:
            self.state.connector = connector
            self.state.exchange = self._exchange(connector)

    def _answer_status(self) -> None:
        """Write what `hbot` looks for, and a fresh snapshot whenever it asks."""
        engine.write_bot_files(self.settings, self.application)
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        def snapshot() -> None:
            task = loop.create_task(engine.write_snapshot(self.application, self.settings, running=True))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        loop.add_signal_handler(signal.SIGUSR1, snapshot)

    async def _trade(self) -> None:
        """Follow the strategy until a stop is requested."""
        state = self.state
        core = self.application.trading_core
        state.phase = "halted" if state.ledger.halt else "trading"
        settled, retry_at = False, 0.0
        while not self.stop_requested:
            await self._first(asyncio.sleep(1.0), self._stopped())
            clock = getattr(core, "_clock_task", None)
            state.strategy_running = bool(
                core._strategy_running and core.strategy is not None and clock is not None and not clock.done())
            if not state.strategy_running and state.ledger.halt is None and not self.stop_requested:
                state.halt("KILL_SWITCH" if self.settings.kind == "v1" else "STRATEGY_STOPPED",
                           "RISK_HALT the engine stopped the strategy by itself (kill switch); see the lines above")
            self._follow_connector()
            await self._unless_stopped(state.keep_books())
            if state.ledger.halt is not None:
                state.phase = "halted"
                # An order that arrived late is settled like those before.
                settled = settled and not state.ledger.unsettled()
                if not settled and time.monotonic() >= retry_at:
                    settled = bool(await self._unless_stopped(self._settle_halt()))
                    retry_at = time.monotonic() + HALT_RETRY_SECONDS
            elif state.notice is not None:
                state.phase = "halted"
            else:
                state.phase = "trading"

    async def _settle_halt(self) -> bool:
        """After a halt: cancel own orders and, where the halt asks for it, sell the position. True when all is done."""
        ledger = self.state.ledger
        deadline = time.monotonic() + 30
        settlement = await self._settle(deadline=deadline, search_unknown=False)
        if settlement.clean and ledger.halt is not None and ledger.halt.close:
            settlement, sold = await self._sell_position(deadline)
            if not sold:
                LOGGER.error("HALTED the position could not be sold yet; trying again in %.0f s", HALT_RETRY_SECONDS)
                return False
            ledger.set_halt(replace(ledger.halt, close=False))
        if settlement.clean:
            LOGGER.info("HALTED own orders: 0, position %s kept", text(ledger.base))
        return settlement.clean

    async def _stay_halted(self) -> int:
        self.state.phase = "halted"
        LOGGER.warning("HALTED not trading: %s", self.state.ledger.halt.message if self.state.ledger.halt else "")
        await self._stopped()
        return EXIT_OK

    async def _stop(self, reason: str) -> int:
        """Stop the engine, then prove with a connector of our own that nothing is open."""
        state = self.state
        state.phase = "stopping"
        state.accepting = False
        deadline = self.deadline or time.monotonic() + STOP_SECONDS
        seconds = min(ENGINE_STOP_SECONDS, max(1.0, deadline - SETTLE_AT_LEAST_SECONDS - time.monotonic()))
        await engine.shut_down(self.application, seconds)
        state.strategy_running = False
        settlement = await settle(self.exchange, state.ledger, state.ids, deadline=deadline, search_unknown=False)
        if settlement.clean:
            state.ledger.close_books()
        self._write_lifecycle("stopped", settlement, reason)
        try:
            await asyncio.wait_for(engine.write_snapshot(self.application, self.settings, running=False), 5)
        except Exception as error:
            LOGGER.debug("no last snapshot: %s", error)
        if not settlement.clean:
            LOGGER.error("STOP_UNVERIFIED own orders could not be shown to be gone: %s", settlement.problem)
            return EXIT_EXCHANGE
        LOGGER.info("STOPPED own orders: 0 (verified: %s), position %s %s kept", self.exchange.verified,
                    text(state.ledger.base), self.settings.base_asset)
        return EXIT_OK

    # -- settle and liquidate

    async def _settle_only(self, *, liquidate: bool) -> int:
        self.state.phase = "settling"
        deadline = time.monotonic() + self.timeout_seconds
        settlement = await self._settle(deadline=deadline, search_unknown=self.before is not None)
        if settlement.clean:
            self.state.ledger.close_books()
        if settlement.clean and liquidate:
            return await self._liquidate(deadline)
        self._write_lifecycle("stopped", settlement, "settled" if settlement.clean else settlement.problem)
        return EXIT_OK if settlement.clean else EXIT_EXCHANGE

    async def _liquidate(self, deadline: float) -> int:
        """Sell what the bot itself holds at market; whatever else the account holds is not touched."""
        ledger = self.state.ledger
        settlement, sold = await self._sell_position(deadline)
        if not sold:
            self._write_lifecycle("stopped", settlement, "not liquidated: the position could not be sold")
            return EXIT_EXCHANGE
        # Written off: what no order can carry, and what a market maker sold beyond what it bought (negative).
        dust = ledger.clear_position()
        ledger.close_books()
        self._write_lifecycle("stopped", settlement, "liquidated", dust)
        return EXIT_OK

    async def _sell_position(self, deadline: float) -> tuple[Settlement, bool]:
        """Sell what the bot holds at market, no order of its own being open; whether nothing sellable is left."""
        ledger = self.state.ledger
        settlement = Settlement(True, 0)
        for attempt in range(3):
            try:
                rules, price = await self.exchange.rules(), await self.exchange.last_price()
                if not price > 0:
                    # Everything would be dust, and written off.
                    raise ExchangeError(f"the exchange tells a last price of {price}")
                left = sellable(ledger.base, rules, price)
                if left <= 0:
                    return settlement, True
                client_id = self._liquidation_id(left)
                LOGGER.info("LIQUIDATE selling %s %s at market", text(left), self.settings.base_asset)
                await self.exchange.sell_at_market(client_id, left)
            except Exception as error:  # refused or timed out: what became of it is asked below
                LOGGER.error("LIQUIDATE attempt %d failed: %s: %s", attempt + 1, type(error).__name__, str(error)[:200])
                left = Decimal(-1)
            settlement = await self._settle(deadline=deadline, search_unknown=False)
            if not settlement.clean or (self.stop_requested and self.mode != "run"):
                break
            if left > 0 and sellable(ledger.base, rules, price) <= 0:
                return settlement, True
        return settlement, False

    def _liquidation_id(self, amount: Decimal) -> str:
        from hummingbot.connector.utils import get_new_client_order_id

        connector = self.exchange.connector  # type: ignore[attr-defined]
        self.state.ledger.intent = Intent("", None, amount, amount)
        client_id: str = get_new_client_order_id(
            False, self.settings.trading_pair, connector.client_order_id_prefix, connector.client_order_id_max_length)
        self.state.closing.add(client_id)
        return client_id
