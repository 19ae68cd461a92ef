# Copyright: (c) 2026, Hummingfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service tells the service manager (systemd's ``sd_notify`` protocol): ready, stopping, still alive."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, MutableMapping


class Notifier:
    """Sends states to the datagram socket at ``address``; does nothing if that is None.

    A state that cannot be sent is dropped: a service works without its manager. ``watchdog_seconds`` is how long the
    manager waits for a sign of life, None if it does not.
    """

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        # A leading @ means Linux' abstract namespace, which is written with a leading NUL.
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.watchdog_seconds = watchdog_seconds if self._address else None

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] | None = None) -> Notifier:
        """The notifier that the environment asks for.

        Its variables are taken out of the environment, so that no process started from here speaks for the service.
        """
        environment = os.environ if environment is None else environment
        address = environment.pop("NOTIFY_SOCKET", None)
        interval = environment.pop("WATCHDOG_USEC", "")
        addressee = environment.pop("WATCHDOG_PID", "")
        wanted = interval.isdecimal() and int(interval) > 0 and addressee in ("", str(os.getpid()))
        return cls(address or None, int(interval) / 1e6 if wanted else None)

    def ready(self, status: str) -> None:
        """The service works; ``status`` is one line for people."""
        self._tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def stopping(self, status: str) -> None:
        """The service ends; ``status`` is one line for people."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """A sign of life."""
        self._tell("WATCHDOG=1")

    def watch(self, is_alive: Callable[[], bool]) -> threading.Event:
        """Gives signs of life, as long as ``is_alive`` says so, from a thread of its own until the event is set."""
        ended = threading.Event()
        if self.watchdog_seconds is not None:
            pause = self.watchdog_seconds / 3

            def give_signs() -> None:
                while True:
                    if is_alive():
                        self.alive()
                    if ended.wait(pause):
                        return

            threading.Thread(target=give_signs, name="watchdog", daemon=True).start()
        return ended

    def _tell(self, *states: str) -> None:
        if self._address is None:
            return
        message = "\n".join(state.replace("\n", " ") for state in states).encode("utf-8", "replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message, self._address)
        except OSError:
            return
