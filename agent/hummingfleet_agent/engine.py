"""The engine in this process: its import, its keystore, its strategy.

The only module that imports Hummingbot at large; everything else gets its objects handed over.
"""

import asyncio
import contextvars
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ConfigurationError, KeystoreError
from .logs import add_stdout_to_engine_loggers
from .order_ids import OrderIdFactory
from .settings import BotSettings, Home

LOGGER = logging.getLogger("hummingfleet.engine")

# In a task that sends an order: the looks at it that are still due before its request leaves.
_looks_due: contextvars.ContextVar[list[Callable[[], None]] | None] = contextvars.ContextVar("looks_due", default=None)


def import_engine(home: Home) -> str:
    """Import the engine; returns its version.

    The engine takes the parent of its package as its home, with conf, data and logs below. The official image and ours
    have the package there; an installed one would read and write site-packages. Raises ConfigurationError for that.
    """
    os.chdir(home.home_dir)
    sys.path.insert(0, str(home.home_dir))
    # Operators' own controllers: a further part of the namespace package `controllers`.
    sys.path.append(str(home.config_dir / "code"))
    import hummingbot

    package_dir = Path(hummingbot.__file__).resolve().parent
    if package_dir.parent != home.home_dir.resolve():
        raise ConfigurationError(
            f"the engine lies in {package_dir.parent}, not in {home.home_dir}; use the release's image")
    return (package_dir / "VERSION").read_text(encoding="ascii").strip()


def patch_order_ids(ids: OrderIdFactory, on_new: Callable[[str, str], None]) -> None:
    """Have the engine name its orders recognisably, and tell ``on_new(client id, side)`` before one is sent."""
    from hummingbot.connector import utils

    original = utils.get_new_client_order_id

    def get_new_client_order_id(
        is_buy: bool, trading_pair: str, hbot_order_id_prefix: str = "", max_id_len: int | None = None
    ) -> str:
        client_id = ids.new(is_buy=is_buy, prefix=hbot_order_id_prefix, max_length=max_id_len)
        if client_id is None:
            client_id = original(is_buy, trading_pair, hbot_order_id_prefix, max_id_len)
        on_new(client_id, "BUY" if is_buy else "SELL")
        return client_id

    utils.get_new_client_order_id = get_new_client_order_id
    # Modules that took the name before this patch.
    for module in list(sys.modules.values()):
        if getattr(module, "get_new_client_order_id", None) is original:
            module.get_new_client_order_id = get_new_client_order_id  # type: ignore[attr-defined]


def order_problem(kind: Any) -> str | None:
    """Why the orders of this connector class cannot be followed; None where they can.

    The gate needs every order to be named by ``get_new_client_order_id`` and sent by ``_place_order``; settling needs
    the fills of one order. Connectors inherit all of that from ``ExchangePyBase``, or go ways of their own.
    """
    from hummingbot.connector.exchange_py_base import ExchangePyBase

    def is_own(name: str) -> bool:
        return getattr(kind, name) is not getattr(ExchangePyBase, name)

    if not issubclass(kind, ExchangePyBase):
        return "it is built unlike the engine's other connectors"
    if is_own("buy") or is_own("sell"):
        return "it names its orders in a way of its own, so that they cannot be recognised"
    for name in ("_create_order", "_place_order_and_process_update"):
        if is_own(name) and "_place_order" not in getattr(kind, name).__code__.co_names:
            return "it sends its orders in a way of its own, so that they cannot be judged"
    if is_own("_update_orders_fills"):
        return "it cannot be asked what a single order has executed"
    return None


def patch_order_sending(connector_name: str, admit: Callable[..., None], number: Callable[[str, str], None]) -> None:
    """Have ``admit`` look at every order of the connector at the moment it is sent.

    ``admit(connector, client_id=, side=, amount=, price=, is_market=, waited=)`` raises where the order may not leave;
    the engine then treats it like one that the exchange has refused. It is asked twice: when the connector begins to
    send, and (``waited``) when the request leaves the queue for the exchange's rate limit. ``number(client id,
    exchange's id)`` is told how the exchange has numbered one that it took.
    Raises ConfigurationError for a connector that is built unlike the engine's others.
    """
    from hummingbot.client.config.config_helpers import get_connector_class
    from hummingbot.core.data_type.common import OrderType
    from hummingbot.core.web_assistant.connections.data_types import RESTMethod
    from hummingbot.core.web_assistant.rest_assistant import RESTAssistant

    kind = get_connector_class(connector_name)
    problem = order_problem(kind)
    if problem is not None:
        raise ConfigurationError(f"connector {connector_name} cannot be traded safely: {problem}; use another exchange")
    send = kind._place_order

    @functools.wraps(send)
    async def place_order(self: Any, order_id: str, trading_pair: str, amount: Any, trade_type: Any, order_type: Any,
                          price: Any, **more: Any) -> Any:
        look = functools.partial(admit, self, client_id=order_id, side=trade_type.name, amount=amount, price=price,
                                 is_market=order_type == OrderType.MARKET)
        look(waited=False)
        token = _looks_due.set([functools.partial(look, waited=True)])
        try:
            sent = await send(self, order_id=order_id, trading_pair=trading_pair, amount=amount,
                              trade_type=trade_type, order_type=order_type, price=price, **more)
            if sent[0] not in (None, "", "UNKNOWN"):
                number(order_id, str(sent[0]))
            return sent
        finally:
            _looks_due.reset(token)

    call = RESTAssistant.call

    @functools.wraps(call)
    async def call_after_look(self: Any, request: Any, *arguments: Any, **more: Any) -> Any:
        # Only before the first request that can be the order: after it, the order may be there.
        looks = _looks_due.get()
        if looks and request.method != RESTMethod.GET:
            looks.pop()()
        return await call(self, request, *arguments, **more)

    kind._place_order = place_order
    RESTAssistant.call = call_after_look


def _runner() -> Any:
    """The engine's own way to be started without a terminal, or ours where it has none (before 2.16)."""
    try:
        import hummingbot.client.runner as runner
    except ModuleNotFoundError:
        from . import older_engine as runner  # type: ignore[no-redef]
    return runner


async def open_engine(home: Home, settings: BotSettings, password: str) -> Any:
    """Log in and build the engine's application; logging goes to file and stdout from here on.

    Raises KeystoreError where the password does not open the keystore, ConfigurationError for a bad configuration.
    """
    from hummingbot.client.config.config_crypt import ETHKeyFileSecretManger, validate_password
    from hummingbot.client.config.config_helpers import load_client_config_map_from_file
    from hummingbot.client.config.security import Security
    from hummingbot.client.settings import AllConnectorSettings

    secrets = ETHKeyFileSecretManger(password)
    try:
        opens = validate_password(secrets)
    except Exception as error:
        raise KeystoreError(f"password_verification is damaged ({type(error).__name__}); converge the tenant again") \
            from None
    if not opens:
        raise KeystoreError("the keystore password does not open the keystore; both must come from one converge")
    if settings.connector not in AllConnectorSettings.get_connector_settings():
        raise ConfigurationError(f"bot.json: the engine has no connector {settings.connector}")
    try:
        client_config = load_client_config_map_from_file()
    except Exception as error:
        raise ConfigurationError(f"conf_client.yml is not accepted by the engine: {_first_line(error)}") from None
    try:
        application = await _runner().bootstrap_application(
            client_config, secrets, strategy_file_name=settings.bot,
            override_log_level=client_config.log_level, headless=True, silence_console=True)
    except Exception as error:
        # Only the kind of error: the text of a decryption error is not ours to vouch for.
        raise KeystoreError(f"the keystore cannot be opened ({type(error).__name__}); converge the tenant again") \
            from None
    if application is None:
        raise KeystoreError("the keystore password does not open the keystore; both must come from one converge")
    add_stdout_to_engine_loggers()
    if not Security.api_keys(settings.connector):
        raise KeystoreError(f"the keystore holds no keys for {settings.connector}; converge the tenant again")
    return application


def make_connector(application: Any, settings: BotSettings) -> Any:
    """A connector of our own for queries: the strategy's lives and dies with the strategy."""
    from hummingbot.client.config.config_helpers import get_connector_class
    from hummingbot.client.config.security import Security
    from hummingbot.client.settings import AllConnectorSettings

    config = application.client_config_map.hb_config
    parameters = AllConnectorSettings.get_connector_settings()[settings.connector].conn_init_parameters(
        trading_pairs=[settings.trading_pair], trading_required=True, api_keys=Security.api_keys(settings.connector),
        balance_asset_limit=config.balance_asset_limit, rate_limits_share_pct=config.rate_limits_share_pct,
        gateway_config=config.gateway)
    return get_connector_class(settings.connector)(**parameters)


async def start_strategy(application: Any, settings: BotSettings) -> None:
    """Load and start the bot's strategy. Raises ConfigurationError where the engine does not really start it."""
    started = await _runner().load_and_start_strategy(
        application, headless=True,
        config_file_name=settings.config if settings.kind == "v1" else None,
        v2_conf=settings.config if settings.kind == "v2" else None)
    core = application.trading_core
    # The engine calls a V1 strategy with unusable values "started successfully".
    if not started or core.strategy is None or settings.connector not in core.connectors:
        raise ConfigurationError("the engine could not start the strategy; the lines above say why")


def write_bot_files(settings: BotSettings, application: Any) -> None:
    """What `hbot status` and `hbot logs` look for; nothing where the engine has no `hbot`."""
    import time

    try:
        from hummingbot.cli import bot
    except ModuleNotFoundError:
        return
    core = application.trading_core
    v1 = settings.kind == "v1"
    bot.bot_dir().mkdir(parents=True, exist_ok=True)
    bot.write_meta({
        "name": settings.bot, "type": "v1-strategy" if v1 else "v2-script", "file": settings.config,
        "config": settings.config if v1 else None, "script_config": None if v1 else settings.config,
        "started_at": time.time(), "pid": os.getpid(),
        "db_path": core.trade_fill_db.db_path if core.trade_fill_db is not None else None,
        "config_file_path": core._strategy_file_name or application.strategy_file_name,
        "strategy_name": core.strategy_name,
    })
    bot.write_pid(os.getpid())


async def write_snapshot(application: Any, settings: BotSettings, *, running: bool) -> None:
    """The engine's status.json, written when `hbot status` asks; nothing where the engine has no `hbot`."""
    try:
        from hummingbot.cli import bot
        from hummingbot.cli.engine import _write_snapshot
    except ModuleNotFoundError:
        return
    await _write_snapshot(application, settings.bot, running=running)
    if not running:
        bot.clear_pid()


async def shut_down(application: Any, seconds: float) -> None:
    """Stop strategy, connectors and clock, bounded."""
    try:
        await asyncio.wait_for(application.trading_core.shutdown(), seconds)
    except TimeoutError:
        LOGGER.warning("STOP_SLOW the engine did not shut down within %.0f s; going on without it", seconds)
    except Exception as error:
        LOGGER.warning("STOP_ENGINE the engine's shutdown failed (%s); going on without it", type(error).__name__)


def _first_line(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    if callable(errors):
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in errors())[:300]
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
