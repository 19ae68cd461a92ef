"""The server: exchange, public ports, control socket, saved state, and reloading the accounts."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from sandbox import state
from sandbox.config import AccountSpec, Settings, check_distinct, load_accounts, parse_account
from sandbox.control_api import ControlApi
from sandbox.errors import ConfigError, ControlError
from sandbox.exchange import Account, Exchange, Fill, Market, Order, Trade
from sandbox.faults import FaultPlan
from sandbox.keys import KeyTable
from sandbox.rest import Rest
from sandbox.stats import Stats
from sandbox.streams import Streams

SAVE_INTERVAL_SECONDS = 1.0
SAVE_SHARE = 0.05
"""Saving takes at most this share of the time: a large state is saved less often."""

log = logging.getLogger(__name__)


class Server:
    """One sandbox exchange. `start` opens it, `stop` saves and closes it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.exchange = Exchange(settings.pairs)
        self.keys = KeyTable()
        self.faults = FaultPlan()
        self.stats = Stats()
        self._added: list[AccountSpec] = []
        """Accounts made through the control endpoint, kept in a file of their own beside the state."""
        self._changed = False
        self._saver: asyncio.Task[None] | None = None
        self._runners: list[web.AppRunner] = []
        self._sites: list[web.TCPSite] = []
        self._tls: ssl.SSLContext | None = None
        self._load_state()
        self.streams = Streams(self.exchange, self.keys, self.stats)
        self.exchange.listeners.append(self)
        self.rest = Rest(self.exchange, self.keys, self.faults, self.stats, self.streams)
        self.reload_accounts()

    # --- life ---

    async def start(self) -> None:
        """Open the control socket, then the public ports."""
        settings = self.settings
        if settings.certificate is not None and settings.private_key is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
            self.reload_certificate()
        await self.streams.start()
        control = await self._runner(ControlApi(self).application())
        settings.control_socket.unlink(missing_ok=True)
        old_mask = os.umask(0o177)
        try:
            await web.UnixSite(control, str(settings.control_socket)).start()
        finally:
            os.umask(old_mask)
        for app in (self.rest.application(), self.rest.market_application()):
            await self._runner(app)
        await self.open_ports()
        if settings.state_dir is not None:
            self._saver = asyncio.create_task(self._save_regularly())

    async def stop(self) -> None:
        """Close everything and save."""
        if self._saver is not None:
            self._saver.cancel()
            with suppress(asyncio.CancelledError):
                await self._saver
        await self.streams.stop()
        for runner in reversed(self._runners):
            await runner.cleanup()
        self.settings.control_socket.unlink(missing_ok=True)
        self._changed = True
        self.save()

    async def open_ports(self) -> None:
        """Listen on the public ports; no effect when they are open."""
        if self._sites:
            return
        ports = (self.settings.https_port, self.settings.stream_port)
        for runner, port in zip(self._runners[1:], ports, strict=True):
            site = web.TCPSite(runner, self.settings.host, port, ssl_context=self._tls, reuse_address=True)
            await site.start()
            self._sites.append(site)

    async def close_ports(self) -> None:
        """Refuse new connections on the public ports and cut the websockets."""
        sites, self._sites = self._sites, []
        for site in sites:
            await site.stop()
        self.streams.disconnect()

    async def apply_outage(self) -> None:
        """Make the ports fit the faults: closed while an outage refuses connections."""
        outage = self.faults.outage()
        if outage == "refuse":
            await self.close_ports()
            return
        await self.open_ports()
        if outage is not None:
            self.streams.disconnect()

    def addresses(self) -> list[tuple[str, int]]:
        """Where the public ports are bound: the main one, then the market streams. For tests with port 0."""
        return [address[:2] for runner in self._runners[1:] for address in runner.addresses[:1]]

    async def _runner(self, app: web.Application) -> web.AppRunner:
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        return runner

    # --- accounts ---

    def reload_accounts(self) -> dict[str, list[str]]:
        """Read the accounts file again; returns the names that can trade now and those that no longer can.

        An account that left the file keeps orders and balances but its key is refused. On an error nothing changes.
        """
        specs = [*self._listed(), *self._added]
        check_distinct(specs, where="accounts file and accounts added since")
        for spec in specs:
            self._open(spec)
        changed = self.keys.replace(spec.credentials for spec in specs)
        active = sorted(spec.credentials.account for spec in specs)
        closed = sorted(set(self.exchange.accounts) - set(active))
        for name in changed:
            self.streams.disconnect(account=name)
        log.info("accounts: %d active, %d closed", len(active), len(closed))
        return {"active": active, "closed": closed}

    def reload_certificate(self) -> None:
        """Read certificate and key again; new connections use them."""
        if self._tls is None or self.settings.certificate is None:
            return
        try:
            self._tls.load_cert_chain(self.settings.certificate, self.settings.private_key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"Certificate {self.settings.certificate} and its key cannot be used "
                              f"({type(error).__name__}).") from None

    def add_account(self, data: Mapping[str, Any]) -> Account:
        """An account made through the control endpoint; it survives restarts when there is a state directory."""
        try:
            spec = parse_account(data, where="account")
        except ConfigError as error:
            raise ControlError(str(error)) from None
        credentials = spec.credentials
        if credentials.account in self.exchange.accounts:
            raise ControlError(f"There is an account {credentials.account!r} already.", 409)
        if credentials.api_key in self.keys:
            raise ControlError("Another account has this api_key.", 409)
        account = self._open(spec)
        self._added.append(spec)
        self._save_added()
        self.reload_accounts()
        return account

    def close_account(self, name: str) -> None:
        """Forget an account with its orders and fills; not one that the accounts file lists."""
        self.exchange.account(name)
        if any(spec.credentials.account == name for spec in self._listed()):
            raise ControlError(f"The accounts file lists {name!r}; take it out there and reload first.", 409)
        self._added = [spec for spec in self._added if spec.credentials.account != name]
        self._save_added()
        self.reload_accounts()
        self.exchange.close_account(name)
        self._changed = True

    def _listed(self) -> list[AccountSpec]:
        path = self.settings.accounts_file
        return load_accounts(path) if path is not None else []

    def _open(self, spec: AccountSpec) -> Account:
        settings = self.settings
        return self.exchange.open_account(
            spec.credentials.account, spec.balances,
            maker_fee=settings.maker_fee if spec.maker_fee is None else spec.maker_fee,
            taker_fee=settings.taker_fee if spec.taker_fee is None else spec.taker_fee)

    # --- saved state ---

    def save(self) -> None:
        """Write the state when something has changed since the last time."""
        if self.settings.state_dir is None or not self._changed:
            return
        self._changed = False
        state.write_json(self.settings.state_dir / "state.json", state.dump(self.exchange))

    async def _save_regularly(self) -> None:
        taken = 0.0
        while True:
            await asyncio.sleep(max(SAVE_INTERVAL_SECONDS, taken / SAVE_SHARE))
            began = time.monotonic()
            try:
                self.save()
            except OSError as error:
                self._changed = True
                log.error("the state cannot be saved: %s", error.strerror)
            taken = time.monotonic() - began

    def _load_state(self) -> None:
        directory = self.settings.state_dir
        if directory is None:
            return
        saved = state.read_json(directory / "state.json")
        if saved is not None:
            state.load(self.exchange, saved)
        added = state.read_json(directory / "added_accounts.json") or []
        self._added = [parse_account(item, where=f"{directory}/added_accounts.json") for item in added]

    def _save_added(self) -> None:
        if self.settings.state_dir is None:
            return
        state.write_json(self.settings.state_dir / "added_accounts.json", [
            {"name": spec.credentials.account, "api_key": spec.credentials.api_key,
             "api_secret": spec.credentials.api_secret,
             "balances": {asset: str(amount) for asset, amount in spec.balances.items()},
             "maker_fee": None if spec.maker_fee is None else str(spec.maker_fee),
             "taker_fee": None if spec.taker_fee is None else str(spec.taker_fee)}
            for spec in self._added
        ])

    def order_changed(self, order: Order, execution: str, fill: Fill | None) -> None:
        """Something to save; fills are logged."""
        self._changed = True
        if fill is not None:
            log.info("fill: account %s order %d %s %s %s at %s", fill.account, fill.order_id, fill.side.value,
                     fill.quantity, fill.pair, fill.price)

    def balances_changed(self, account: Account, assets: object) -> None:
        """Something to save."""
        self._changed = True

    def traded(self, market: Market, trade: Trade) -> None:
        """Something to save."""
        self._changed = True

    def book_changed(self, market: Market) -> None:
        """Something to save."""
        self._changed = True
