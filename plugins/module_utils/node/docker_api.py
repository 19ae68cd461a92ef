# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker Engine over its Unix socket, with the standard library.

One execution asks about hundreds of stacks: a connection to the socket answers in milliseconds, where a ``docker``
process costs 50. Paths and fields: Docker Engine API reference, v1.41.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from typing import Any
from urllib.parse import quote, urlencode

from ansible_collections.hummingfleet.core.plugins.module_utils.node.problem import Problem

LOG_MAX_BYTES = 262_144


class DockerError(Exception):
    """The engine could not be asked, or refused; the text says which and what it answered.

    ``status`` is the engine's HTTP status, 0 where it did not answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def problem(self) -> Problem:
        """What kind of trouble it is."""
        return Problem.NODE_REFUSED if self.status else Problem.UNREACHABLE


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerEngine:
    """A small client; safe to share between threads, each of which keeps one connection open."""

    def __init__(self, socket_path: str = "/var/run/docker.sock", timeout_seconds: float = 60.0) -> None:
        self._socket_path = socket_path
        self._timeout_seconds = timeout_seconds
        self._local = threading.local()

    def request(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        body: Any = None,
        timeout_seconds: float | None = None,
    ) -> Any:
        """The decoded answer, or None for an empty one; raises DockerError."""
        target = path
        if query:
            encoded = {k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in query.items()}
            target += "?" + urlencode(encoded)
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if payload is not None else {}
        timeout = timeout_seconds or self._timeout_seconds
        for attempt in (1, 2):
            connection = getattr(self._local, "connection", None)
            fresh = connection is None
            if connection is None:
                connection = _UnixConnection(self._socket_path, timeout)
                self._local.connection = connection
            try:
                connection.timeout = timeout
                if connection.sock is not None:
                    connection.sock.settimeout(timeout)
                connection.request(method, target, payload, headers)
                response = connection.getresponse()
                raw = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._local.connection = None
                # A kept connection may have been closed by the engine meanwhile: only a read is safe to repeat.
                if not fresh and attempt == 1 and (method == "GET" or isinstance(error, http.client.BadStatusLine)):
                    continue
                raise DockerError(
                    f"the Docker engine does not answer at {self._socket_path} ({type(error).__name__}: {error}); "
                    "is it running on this node?"
                ) from None
            break
        if response.status >= 400:
            try:
                message = json.loads(raw)["message"]
            except (ValueError, KeyError, TypeError):
                message = raw.decode(errors="replace")[:500]
            raise DockerError(f"Docker refused {method} {path}: {message}", response.status)
        return json.loads(raw) if raw else None

    def containers(self, labels: list[str]) -> list[dict[str, Any]]:
        """All containers, running or not, that carry every one of ``labels`` (``key`` or ``key=value``)."""
        found = self.request("GET", "/containers/json", {"all": "1", "filters": {"label": labels}})
        return list(found)

    def inspect(self, container: str) -> dict[str, Any] | None:
        """The container, or None if there is none of that name."""
        try:
            found = self.request("GET", f"/containers/{quote(container)}/json")
        except DockerError as error:
            if error.status == 404:
                return None
            raise
        return dict(found)

    def log(self, container: str, *, lines: int, since: int) -> list[str]:
        """The last ``lines`` lines a container wrote since that time (epoch seconds); at most 256 KiB of them."""
        query = {"stdout": "1", "stderr": "1", "tail": str(lines), "since": str(since)}
        # A connection of its own: it is closed without reading the rest of a long answer.
        connection = _UnixConnection(self._socket_path, self._timeout_seconds)
        try:
            connection.request("GET", f"/containers/{quote(container)}/logs?{urlencode(query)}")
            response = connection.getresponse()
            raw = response.read(LOG_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise DockerError(f"the Docker engine gave no log ({type(error).__name__}: {error})") from None
        finally:
            connection.close()
        if response.status >= 400:
            raise DockerError(f"Docker refused the log of {container}", response.status)
        return _frames(raw).decode(errors="replace").splitlines()

    def stop(self, container: str, grace_seconds: int) -> None:
        """SIGTERM, then SIGKILL after the grace period; returns when the container has stopped."""
        self.request(
            "POST", f"/containers/{quote(container)}/stop", {"t": grace_seconds}, timeout_seconds=grace_seconds + 30
        )

    def signal(self, container: str, name: str) -> None:
        """Sends the main process of a running container a signal such as ``HUP``."""
        self.request("POST", f"/containers/{quote(container)}/kill", {"signal": name})

    def remove(self, container: str) -> None:
        """Removes a container, whatever its state; its anonymous volumes go with it."""
        try:
            self.request("DELETE", f"/containers/{quote(container)}", {"force": "1", "v": "1"})
        except DockerError as error:
            if error.status != 404:
                raise

    def networks(self, labels: list[str]) -> list[dict[str, Any]]:
        """The networks that carry every one of ``labels``."""
        return list(self.request("GET", "/networks", {"filters": {"label": labels}}))

    def network(self, name: str) -> dict[str, Any] | None:
        """The network with its attached containers, or None."""
        try:
            return dict(self.request("GET", f"/networks/{quote(name)}"))
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    def create_network(
        self,
        name: str,
        subnet: str,
        gateway: str,
        internal: bool,
        labels: dict[str, str],
        options: dict[str, str] | None = None,
    ) -> None:
        """A bridge network with its own subnet; ``options`` are the driver's."""
        body = {
            "Name": name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Internal": internal,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet, "Gateway": gateway}]},
            "Labels": labels,
            "Options": options or {},
        }
        self.request("POST", "/networks/create", body=body)

    def remove_network(self, name: str) -> None:
        """Removes the network; nothing happens if there is none."""
        try:
            self.request("DELETE", f"/networks/{quote(name)}")
        except DockerError as error:
            if error.status != 404:
                raise

    def connect(self, network: str, container: str, aliases: list[str], address: str) -> None:
        """Attaches a container to a network under the given names and address."""
        endpoint = {"Aliases": aliases, "IPAMConfig": {"IPv4Address": address}}
        self.request(
            "POST", f"/networks/{quote(network)}/connect", body={"Container": container, "EndpointConfig": endpoint}
        )

    def disconnect(self, network: str, container: str) -> None:
        """Detaches a container; nothing happens if it was not attached."""
        try:
            self.request("POST", f"/networks/{quote(network)}/disconnect", body={"Container": container, "Force": True})
        except DockerError as error:
            if error.status not in (404, 403, 500):
                raise

    def image_id(self, reference: str) -> str | None:
        """The id of the local image with that reference, or None."""
        try:
            return str(self.request("GET", f"/images/{quote(reference, safe='/:@')}/json")["Id"])
        except DockerError as error:
            if error.status == 404:
                return None
            raise


def _frames(raw: bytes) -> bytes:
    """The text in the engine's stream of frames: one byte for the stream, three of nothing, four for the length."""
    parts = []
    at = 0
    while at + 8 <= len(raw):
        length = int.from_bytes(raw[at + 4 : at + 8], "big")
        parts.append(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(parts)
