"""What the engine offers as ``hummingbot.client.runner`` since 2.16, for engines that have no such module.

The same two steps with the same names: make the application, start the strategy. Only what a bot without a terminal
needs.
"""

import logging
import sys
from typing import Any


async def bootstrap_application(
    client_config: Any, secrets: Any, *, strategy_file_name: str, override_log_level: str, headless: bool,
    silence_console: bool,
) -> Any:
    """Log in, read the engine's own configuration and make its application; None where the password is wrong."""
    from hummingbot import init_logging
    from hummingbot.client.config.config_helpers import create_yml_files_legacy, read_system_configs_from_yml
    from hummingbot.client.config.security import Security
    from hummingbot.client.hummingbot_application import HummingbotApplication
    from hummingbot.client.settings import AllConnectorSettings

    if not Security.login(secrets):
        return None
    await Security.wait_til_decryption_done()
    await create_yml_files_legacy()
    init_logging("hummingbot_logs.yml", client_config, override_log_level=override_log_level,
                 strategy_file_path=strategy_file_name)
    if silence_console:
        _silence_console()
    await read_system_configs_from_yml()
    AllConnectorSettings.initialize_paper_trade_settings(client_config.paper_trade.paper_trade_exchanges)
    return HummingbotApplication.main_application(client_config_map=client_config, headless_mode=headless)


async def load_and_start_strategy(
    application: Any, *, headless: bool, config_file_name: str | None = None, v2_conf: str | None = None
) -> bool:
    """Start the V1 strategy file or the V2 script file of this name; whether the engine says that it started."""
    import yaml
    from hummingbot.client.config.config_helpers import load_strategy_config_map_from_file
    from hummingbot.client.settings import SCRIPT_STRATEGY_CONF_DIR_PATH, STRATEGIES_CONF_DIR_PATH

    core = application.trading_core
    if v2_conf is not None:
        script = yaml.safe_load((SCRIPT_STRATEGY_CONF_DIR_PATH / v2_conf).read_text(encoding="utf-8"))
        application.strategy_file_name = v2_conf
        core.strategy_name = script["script_file_name"].removesuffix(".py")
        return bool(await core.start_strategy(core.strategy_name, v2_conf, v2_conf))
    assert config_file_name is not None
    config = await load_strategy_config_map_from_file(STRATEGIES_CONF_DIR_PATH / config_file_name)
    application.strategy_file_name = config_file_name.removesuffix(".yml")
    application.strategy_config_map = config
    core.strategy_name = config["strategy"].value
    return bool(await core.start_strategy(core.strategy_name, config, config_file_name))


def _silence_console() -> None:
    """Take the engine's handlers for the terminal away; the launcher adds its own."""
    for logger in (logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))):
        for handler in list(logger.handlers):
            terminal = getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
            if terminal or type(handler).__name__ == "CLIHandler":
                logger.removeHandler(handler)
