"""A load generator for loopback: some keep-alive connections that send ready-made requests one after another."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_BUFFER = 65536


@dataclass(frozen=True)
class Load:
    """What came of a load: answers by status, seconds altogether, seconds per request in ascending order."""

    statuses: dict[int, int]
    seconds: float
    times: tuple[float, ...]
    own_cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Answered requests per second."""
        return len(self.times) / self.seconds

    def percentile_ms(self, share: float) -> float:
        """Milliseconds that this share of the requests took at most."""
        return self.times[min(len(self.times) - 1, int(len(self.times) * share))] * 1000


def request(port: int, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """A POST as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def send_all(port: int, requests: Sequence[bytes], connections: int) -> Load:
    """Sends each of ``requests`` once, shared out over that many connections; raises what a connection raised."""
    times: list[list[float]] = [[] for _ in range(connections)]
    statuses: Counter[int] = Counter()
    errors: list[BaseException] = []
    sockets = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(connections)]

    def work(index: int) -> None:
        try:
            with sockets[index] as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                found = []
                for one in requests[index::connections]:
                    sent = time.perf_counter()
                    connection.sendall(one)
                    found.append(_read_answer(connection))
                    times[index].append(time.perf_counter() - sent)
                statuses.update(found)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(connections)]
    cpu, started = time.process_time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if errors:
        raise errors[0]
    every = tuple(sorted(one for some in times for one in some))
    return Load(dict(statuses), seconds, every, time.process_time() - cpu)


def _read_answer(connection: socket.socket) -> int:
    """Reads one answer to its end; its status."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(_BUFFER)
        if not piece:
            raise ConnectionError("the server closed the connection")
        data += piece
    head, _separator, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _colon, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    missing = length - len(body)
    while missing > 0:
        piece = connection.recv(_BUFFER)
        if not piece:
            raise ConnectionError("the server closed the connection")
        missing -= len(piece)
    return int(head.split(b" ", 2)[1])
