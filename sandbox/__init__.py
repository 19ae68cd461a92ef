"""A sandbox exchange that speaks Binance spot: for tests, demonstrations and staging, never with real money."""

__version__ = "1.0.0"
