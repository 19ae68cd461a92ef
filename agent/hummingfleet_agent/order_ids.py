"""Client order ids by which any process recognises a bot's own orders on the exchange.

``<broker prefix><B|S><order tag><nonce>``: the tag is 8 hex digits of the tenant and bot, the nonce the time of
creation in microseconds as 13 hex digits, strictly rising. The nonce also says, without asking anybody's clock but
ours, whether an order is older than the ledger's memory.
"""

import time
from dataclasses import dataclass

NONCE_DIGITS = 13
# Below this many digits the nonce repeats within minutes, and ids would not be unique.
MINIMUM_NONCE_DIGITS = 10


@dataclass(frozen=True)
class OrderId:
    """What a client order id of ours says."""

    side: str
    nonce_us: int


class OrderIdFactory:
    """Makes and recognises the client order ids of one bot."""

    def __init__(self, order_tag: str, floor_us: int = 0) -> None:
        self.order_tag = order_tag
        self._last_us = floor_us

    def raise_floor(self, floor_us: int) -> None:
        """Never hand out a nonce up to ``floor_us`` again, even if the clock was set back."""
        self._last_us = max(self._last_us, floor_us)

    def new(self, *, is_buy: bool, prefix: str, max_length: int | None) -> str | None:
        """A new id, or None where the exchange leaves no room for tag and a unique nonce."""
        head = f"{prefix}{'B' if is_buy else 'S'}{self.order_tag}"
        digits = NONCE_DIGITS if max_length is None else min(NONCE_DIGITS, max_length - len(head))
        if digits < MINIMUM_NONCE_DIGITS:
            return None
        # Cut digits must not make two ids equal: step by the smallest value that still shows.
        unit = 16 ** (NONCE_DIGITS - digits)
        self._last_us = max(int(time.time() * 1e6), (self._last_us // unit + 1) * unit)
        return head + f"{self._last_us:0{NONCE_DIGITS}x}"[:digits]

    def parse(self, client_order_id: str) -> OrderId | None:
        """What the id says; None where the order is not this bot's."""
        for side, letter in (("BUY", "B"), ("SELL", "S")):
            marker = letter + self.order_tag
            position = client_order_id.find(marker)
            if position < 0:
                continue
            nonce = client_order_id[position + len(marker):]
            if len(nonce) < MINIMUM_NONCE_DIGITS or len(nonce) > NONCE_DIGITS:
                continue
            try:
                return OrderId(side, int(nonce.ljust(NONCE_DIGITS, "0"), 16))
            except ValueError:
                continue
        return None
