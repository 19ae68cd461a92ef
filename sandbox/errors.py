"""The errors of the sandbox: what a trading client sees, and what an operator sees."""

from __future__ import annotations


class SandboxError(Exception):
    """A sentence for the operator: what is wrong, where, and what to do. Never holds a secret."""


class ConfigError(SandboxError):
    """The configuration, the accounts file or the saved state cannot be used."""


class ControlError(SandboxError):
    """A control request cannot be carried out; `status` is the HTTP status of the answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ExchangeError(Exception):
    """A refusal as Binance words it: HTTP status, Binance's numeric code, message."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status

    def plain(self) -> dict[str, int | str]:
        """The body of the answer."""
        return {"code": self.code, "msg": self.message}


def unknown_error() -> ExchangeError:
    """Binance's answer to a failure of its own."""
    return ExchangeError(-1000, "An unknown error occurred while processing the request.", 500)


def service_unavailable() -> ExchangeError:
    """Binance's answer while it is down for everybody."""
    return ExchangeError(-1001, "Internal error; unable to process your request. Please try again.", 503)


def outcome_unknown() -> ExchangeError:
    """HTTP 503 of a request that reached the matching engine: it may or may not have been executed."""
    return ExchangeError(-1000, "Unknown error, please check your request or try again later.", 503)


def too_many_requests() -> ExchangeError:
    """Rate limit exceeded."""
    return ExchangeError(-1003, "Too many requests; current limit is exceeded. Please back off.", 429)


def bad_key_format() -> ExchangeError:
    """The X-MBX-APIKEY header is missing or is no key."""
    return ExchangeError(-2014, "API-key format invalid.", 401)


def bad_key() -> ExchangeError:
    """The key is unknown here."""
    return ExchangeError(-2015, "Invalid API-key, IP, or permissions for action.", 401)


def bad_signature() -> ExchangeError:
    """The signature does not fit the bytes of the request."""
    return ExchangeError(-1022, "Signature for this request is not valid.")


def late_timestamp() -> ExchangeError:
    """The request is older than its recvWindow."""
    return ExchangeError(-1021, "Timestamp for this request is outside of the recvWindow.")


def early_timestamp() -> ExchangeError:
    """The request is from the future."""
    return ExchangeError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")


def missing_parameter(name: str) -> ExchangeError:
    """A parameter that the call needs is absent or malformed."""
    return ExchangeError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def empty_parameter(name: str) -> ExchangeError:
    """A parameter was sent without a value."""
    return ExchangeError(-1105, f"Parameter '{name}' was empty.")


def illegal_parameter(name: str, allowed: str) -> ExchangeError:
    """A parameter's value has characters that its kind does not allow."""
    return ExchangeError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{allowed}'.")


def needless_parameter(name: str) -> ExchangeError:
    """A parameter that this type of order does not take."""
    return ExchangeError(-1106, f"Parameter '{name}' sent when not required.")


def unread_parameters(read: int, sent: int) -> ExchangeError:
    """The request carries parameters that the call does not know."""
    return ExchangeError(-1104, f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{sent}'.")


def too_many_parameters() -> ExchangeError:
    """A parameter was sent twice, or there are absurdly many."""
    return ExchangeError(-1101, "Too many parameters, or a duplicate value for a parameter detected.")


def bad_symbol() -> ExchangeError:
    """The pair is not traded here."""
    return ExchangeError(-1121, "Invalid symbol.")


def bad_precision(name: str) -> ExchangeError:
    """More decimals than the asset has."""
    return ExchangeError(-1111, f"Parameter '{name}' has too much precision.")


def filter_failure(name: str) -> ExchangeError:
    """A trading rule of the pair is violated."""
    return ExchangeError(-1013, f"Filter failure: {name}")


def rejected(message: str) -> ExchangeError:
    """The matching engine refused a new order."""
    return ExchangeError(-2010, message)


def insufficient_balance() -> ExchangeError:
    """The account cannot pay for the order."""
    return rejected("Account has insufficient balance for requested action.")


def would_take() -> ExchangeError:
    """A LIMIT_MAKER order would have matched at once."""
    return rejected("Order would immediately match and take.")


def duplicate_order() -> ExchangeError:
    """An open order has this client order id already."""
    return rejected("Duplicate order sent.")


def cancel_rejected() -> ExchangeError:
    """There is no open order to cancel."""
    return ExchangeError(-2011, "Unknown order sent.")


def no_such_order() -> ExchangeError:
    """The order queried does not exist."""
    return ExchangeError(-2013, "Order does not exist.")
