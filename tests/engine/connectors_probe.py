"""Runs inside the engine's image: says of each connector given on stdin what keeps its orders from being followed."""

import asyncio
import base64
import contextlib
import json
import sys
from decimal import Decimal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hummingbot.client.config.config_helpers import get_connector_class
from hummingbot.client.settings import AllConnectorSettings
from hummingbot.core.data_type.common import OrderType, TradeType
from hummingbot.core.data_type.in_flight_order import InFlightOrder
from hummingfleet_agent.engine import order_problem

# Whatever form it should have: a key that can be read as PEM, as base64 and as text.
KEY = base64.b64encode(
    Ed25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()
CLIENT_ID = "HBOTxCLIENTxID1"
UNNUMBERED = "it cannot ask for an order whose number on the exchange it does not know, as after a crash"


class Asked(Exception):
    """A request was about to leave."""


async def asks_by_client_id(setting):
    """Whether the connector asks for an order by the client's id where it knows no other."""
    fields = type(setting.config_keys).model_fields
    keys = {name: KEY if field.is_required() else field.default for name, field in fields.items()}
    del keys["connector"]
    connector = get_connector_class(setting.name)(**setting.conn_init_parameters(
        trading_pairs=["BTC-USDT"], trading_required=True, api_keys=keys))
    requests = []

    async def request(*arguments, **more):
        requests.append(repr((arguments, more)))
        raise Asked

    async def symbol(*arguments, **more):
        return "BTCUSDT"

    for name in ("_api_request", "_api_get", "_api_post", "_api_put", "_api_delete"):
        setattr(connector, name, request)
    connector.exchange_symbol_associated_to_pair = symbol
    order = InFlightOrder(client_order_id=CLIENT_ID, trading_pair="BTC-USDT", order_type=OrderType.LIMIT,
                          trade_type=TradeType.BUY, amount=Decimal(1), price=Decimal(1), creation_timestamp=1.0)
    with contextlib.suppress(Exception):  # whatever stops it: what it has asked is known
        await asyncio.wait_for(connector._request_order_status(order), 1)
    return bool(requests) and CLIENT_ID in requests[0]


def problem_of(setting):
    """Why bots are to be refused on it, or None."""
    problem = order_problem(get_connector_class(setting.name))
    return problem or (None if asyncio.run(asks_by_client_id(setting)) else UNNUMBERED)


def main():
    """Answers on the last line; connectors that this engine does not have are left out."""
    AllConnectorSettings.create_connector_settings()
    known = AllConnectorSettings.get_connector_settings()
    wanted = [name for name in json.load(sys.stdin) if name in known]
    print(json.dumps({name: problem_of(known[name]) for name in wanted}))


if __name__ == "__main__":
    main()
