"""Errors that end a run of the launcher, each with its exit code."""

EXIT_OK = 0
EXIT_OTHER = 1
EXIT_CONFIGURATION = 2
EXIT_EXCHANGE = 3
EXIT_KEYSTORE = 4


class AgentError(Exception):
    """Something that ends the run; the message says what is wrong, where, and what to do."""

    exit_code = EXIT_OTHER
    code = "AGENT_FAILED"


class ConfigurationError(AgentError):
    """The bot's configuration cannot be used."""

    exit_code = EXIT_CONFIGURATION
    code = "CONFIGURATION"


class ExchangeError(AgentError):
    """The exchange could not be asked, or own orders remain on it."""

    exit_code = EXIT_EXCHANGE
    code = "EXCHANGE"


class KeystoreError(AgentError):
    """The keystore or its password cannot be used."""

    exit_code = EXIT_KEYSTORE
    code = "KEYSTORE"


class OrderRefusedError(Exception):
    """An order was stopped before it was sent; the message begins with a stable code."""
