"""Accepts TCP connections and datagrams on addresses and ports, and remembers what came; standard library.

As a program it listens on one port of a container and prints each datagram.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import threading


class Listeners:
    """TCP and UDP on one free port (or ``port``) of each address."""

    def __init__(self, addresses: list[str], port: int = 0) -> None:
        self.ports: dict[str, int] = {}
        self.connections: set[str] = set()
        self.datagrams: set[tuple[str, str]] = set()
        self._selector = selectors.DefaultSelector()
        for address in addresses:
            server = socket.create_server((address, port), backlog=128)
            self.ports[address] = server.getsockname()[1]
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            datagrams.bind((address, self.ports[address]))
            self._selector.register(server, selectors.EVENT_READ, (address, self._accept))
            self._selector.register(datagrams, selectors.EVENT_READ, (address, self._receive))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self) -> Listeners:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]

    def serve(self) -> None:
        """Until it is ended."""
        while not self._ended.is_set():
            for key, _events in self._selector.select(0.1):
                address, handle = key.data
                with contextlib.suppress(OSError):
                    handle(address, key.fileobj)

    def _accept(self, address: str, server: socket.socket) -> None:
        connection, _peer = server.accept()
        connection.close()
        self.connections.add(address)

    def _receive(self, address: str, datagrams: socket.socket) -> None:
        text = datagrams.recv(1024).decode()
        self.datagrams.add((address, text))
        print(text, flush=True)


if __name__ == "__main__":
    Listeners(["0.0.0.0"], int(sys.argv[1])).serve()
