"""`python -m sandbox.control --socket PATH COMMAND`: script and watch a running sandbox exchange.

Standard library only. Prints tables, or with --json the endpoint's own answers. Exit codes: 0 done, 1 refused by the
exchange, 2 wrong usage, 3 the exchange cannot be reached.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

DEFAULT_SOCKET = "/run/sandbox/control.sock"
TIMEOUT_SECONDS = 30


class ControlClientError(Exception):
    """The exchange refused (`exit_code` 1) or cannot be reached (3)."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("sandbox", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ControlClient:
    """The control endpoint as a function: `request` returns the answer's JSON or raises ControlClientError."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request; `body` is sent as JSON."""
        connection = _UnixConnection(self.socket_path)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            data = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ControlClientError(
                f"The sandbox exchange cannot be reached on {self.socket_path} ({error}). Is it running, and may you "
                "open its socket?", 3) from None
        finally:
            connection.close()
        if response.status >= 400:
            raise ControlClientError(str(data.get("error", data)))
        return data

    def get(self, path: str, **query: str | None) -> Any:
        """GET with those query parameters that are not None."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.request("GET", f"{path}?{urlencode(given)}" if given else path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    options = _parser().parse_args(arguments)
    client = ControlClient(options.socket)
    try:
        data = options.run(client, options)
    except ControlClientError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(data, indent=2))
    else:
        options.show(data)
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the answer as JSON")
    parser = argparse.ArgumentParser(prog="python -m sandbox.control", description=__doc__, parents=[common],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(json=False)
    parser.add_argument("--socket", default=os.environ.get("SANDBOX_CONTROL_SOCKET", DEFAULT_SOCKET),
                        help="control socket (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, run: Any, show: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(run=run, show=show)
        return made

    command("health", "whether it runs", lambda c, o: c.get("/health"), _show_values)
    command("prices", "price, bid and ask of every pair", lambda c, o: c.get("/prices"), _show_prices)
    made = command("price", "move a pair's price; fills the orders it meets", _move, _show_move)
    made.add_argument("pair")
    made.add_argument("price")
    made.add_argument("--volume", help="base amount that may fill on the way; unlimited by default")
    made.add_argument("--spread-bps", help="spread from now on, in hundredths of a percent; as it is by default")
    made = command("orders", "orders, the open ones by default",
                   lambda c, o: c.get("/orders", account=o.account, pair=o.pair, state=o.state), _show_orders)
    _add_filters(made)
    made.add_argument("--state", choices=("open", "closed", "all"), default="open")
    made = command("fills", "fills, oldest first", lambda c, o: c.get("/fills", account=o.account, pair=o.pair),
                   _show_fills)
    _add_filters(made)
    made = command("fill", "fill an open order wholly or in part, at its own price",
                   lambda c, o: c.request("POST", "/fill", {"order_id": o.order_id, "quantity": o.quantity}),
                   lambda data: _show_fills({"fills": [data["fill"]]}))
    made.add_argument("order_id", type=int)
    made.add_argument("quantity", nargs="?", help="base amount; all that remains by default")
    made = command("cancel", "let the exchange cancel an order",
                   lambda c, o: c.request("POST", "/cancel", {"order_id": o.order_id}),
                   lambda data: _show_orders({"orders": [data["order"]]}))
    made.add_argument("order_id", type=int)
    command("accounts", "all accounts", lambda c, o: c.get("/accounts"), _show_accounts)
    made = command("account", "one account", lambda c, o: {"accounts": [c.get(f"/account/{quote(o.name, safe='')}")]},
                   _show_accounts)
    made.add_argument("name")
    made = command("add-account", "add an account from a JSON file (- is standard input): "
                   "name, api_key, api_secret, balances", _add_account, _show_account)
    made.add_argument("file")
    made = command("close-account", "cancel an account's orders and forget it",
                   lambda c, o: c.request("DELETE", f"/account/{quote(o.name, safe='')}"), _show_values)
    made.add_argument("name")
    for name, text in (("deposit", "add to a balance"), ("withdraw", "take from a balance")):
        made = command(name, text, _deposit, _show_account)
        made.add_argument("name")
        made.add_argument("asset")
        made.add_argument("amount")
    command("reload", "read the accounts file and the certificate again",
            lambda c, o: c.request("POST", "/accounts/reload"), _show_values)
    made = command("stats", "requests, signatures, connections", _stats, _show_stats)
    made.add_argument("--reset", action="store_true", help="show, then count from zero")
    command("faults", "the faults in effect", lambda c, o: c.get("/faults"), _show_faults)
    made = command("fault", "put a fault into effect", _add_fault, lambda data: _show_faults({"faults": [data]}))
    made.add_argument("kind", help="error, unauthorized, insufficient_balance, slow, lost_request, lost_response, "
                                   "outcome_unknown, thin_book, outage")
    for name, kind in (("path", str), ("method", str), ("account", str), ("count", int), ("percent", float),
                       ("seconds", float), ("status", int), ("code", int), ("message", str), ("mode", str),
                       ("seed", int)):
        made.add_argument(f"--{name}", type=kind)
    made = command("clear", "remove a fault, or all", lambda c, o: c.request(
        "DELETE", "/faults" if o.id is None else f"/faults/{o.id}"),
        lambda data: _show_faults({"faults": data["removed"]}))
    made.add_argument("id", type=int, nargs="?")
    made = command("disconnect", "cut websocket connections", lambda c, o: c.request(
        "POST", "/disconnect", {"kind": o.kind, "account": o.account}), _show_values)
    made.add_argument("--kind", choices=("market", "user"))
    made.add_argument("--account")
    return parser


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--account")
    parser.add_argument("--pair")


def _move(client: ControlClient, options: argparse.Namespace) -> Any:
    body = {"pair": options.pair, "price": options.price, "volume": options.volume,
            "spread_bps": options.spread_bps}
    return client.request("POST", "/price", body)


def _add_account(client: ControlClient, options: argparse.Namespace) -> Any:
    try:
        text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text(encoding="utf-8")
        data = json.loads(text)
    except OSError as error:
        raise ControlClientError(f"{options.file} cannot be read: {error.strerror}.", 2) from None
    except ValueError:
        raise ControlClientError(f"{options.file} is not valid JSON.", 2) from None
    return client.request("POST", "/accounts", data)


def _deposit(client: ControlClient, options: argparse.Namespace) -> Any:
    body = {"balances": {options.asset: options.amount}, "withdraw": options.command == "withdraw"}
    return client.request("POST", f"/account/{quote(options.name, safe='')}/deposit", body)


def _stats(client: ControlClient, options: argparse.Namespace) -> Any:
    data = client.get("/stats")
    if options.reset:
        client.request("DELETE", "/stats")
    return data


def _add_fault(client: ControlClient, options: argparse.Namespace) -> Any:
    names = ("kind", "path", "method", "account", "count", "percent", "seconds", "status", "code", "message", "mode",
             "seed")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return client.request("POST", "/faults", given)


# --- tables ---


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    lines = [[str(value) if value is not None else "-" for value in row] for row in rows]
    if not lines:
        print(empty)
        return
    widths = [max(len(line[column]) for line in (list(heads), *lines)) for column in range(len(heads))]
    for line in (list(heads), *lines):
        print("  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())


def _clock(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%H:%M:%S")


def _show_values(data: Mapping[str, Any]) -> None:
    _table(("what", "value"), [(name, ", ".join(map(str, value)) if isinstance(value, list) else value)
                               for name, value in data.items()], empty="nothing")


def _show_prices(data: Mapping[str, Any]) -> None:
    _table(("pair", "price", "bid", "ask", "resting"),
           [(name, item["price"], item["bid"], item["ask"], item["resting_orders"])
            for name, item in data["prices"].items()], empty="no pairs")


def _show_move(data: Mapping[str, Any]) -> None:
    print(f"{data['pair']} is at {data['price']}")
    _show_fills(data)


def _show_orders(data: Mapping[str, Any]) -> None:
    _table(("order", "account", "pair", "side", "type", "price", "quantity", "executed", "status", "client order id",
            "time"),
           [(item["order_id"], item["account"], item["pair"], item["side"], item["type"], item["price"],
             item["quantity"], item["executed"], item["status"], item["client_order_id"], _clock(item["time"]))
            for item in data["orders"]], empty="no orders")


def _show_fills(data: Mapping[str, Any]) -> None:
    _table(("trade", "order", "account", "pair", "side", "price", "quantity", "commission", "as", "time"),
           [(item["trade_id"], item["order_id"], item["account"], item["pair"], item["side"], item["price"],
             item["quantity"], f"{item['commission']} {item['commission_asset']}",
             "maker" if item["is_maker"] else "taker", _clock(item["time"])) for item in data["fills"]],
           empty="no fills")


def _show_account(data: Mapping[str, Any]) -> None:
    _show_accounts({"accounts": [data]})


def _show_accounts(data: Mapping[str, Any]) -> None:
    rows = []
    for item in data["accounts"]:
        for asset, balance in (item["balances"] or {"-": {"free": "-", "locked": "-", "total": "-"}}).items():
            rows.append((item["name"], asset, balance["free"], balance["locked"], balance["total"],
                         item["open_orders"], item["fills"]))
    _table(("account", "asset", "free", "locked", "total", "open orders", "fills"), rows, empty="no accounts")


def _show_stats(data: Mapping[str, Any]) -> None:
    print(f"since {_clock(data['since'])}: {data['requests']} requests, {data['signed']} good signatures, "
          f"{data['bad_signatures']} bad, {data['unknown_keys']} unknown keys; websockets: "
          + ", ".join(f"{count} {kind}" for kind, count in data["connections"].items()))
    _table(("path", "requests"), list(data["paths"].items()), empty="no requests yet")
    _table(("account", "path", "signed", "bad"),
           [(name, path, counts["signed"], counts["bad_signatures"]) for name, item in data["accounts"].items()
            for path, counts in item["paths"].items()], empty="no signed requests yet")
    _table(("account", "path", "refused with", "times"),
           [(name, path, words, count) for name, item in data["accounts"].items()
            for path, refusals in item["refusals"].items() for words, count in refusals.items()],
           empty="no signed request was refused")


def _show_faults(data: Mapping[str, Any]) -> None:
    _table(("fault", "kind", "method", "path", "account", "remaining", "percent", "hits"),
           [(item["id"], item["kind"], item["method"], item["path"], item["account"], item["remaining"],
             item["percent"], item["hits"]) for item in data["faults"]], empty="no faults")


if __name__ == "__main__":
    sys.exit(main())
