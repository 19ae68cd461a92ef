"""Runs inside a container: which ports of which addresses can be reached. Reads JSON, writes JSON; standard library.

In:  {"tcp": {address: [first port, last port]}, "udp": [[address, port, text], ...], "timeout": seconds}
Out: {address: [ports that accepted a connection]}

An answer within the timeout is expected for everything that is reachable, since all of it is on one machine.
"""

import collections
import contextlib
import errno
import json
import multiprocessing
import resource
import select
import socket
import sys
import time

SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)
AT_ONCE = min(4000, HARD - 50)
SETTLED = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EACCES, errno.EPERM)


def connect(probe, target):
    """What connecting comes to: 0, EALREADY while nothing answered yet, or the error. The socket can be used again."""
    outcome = probe.connect_ex(target)
    # On one machine the answer is mostly there by now, and a second call tells it.
    return probe.connect_ex(target) if outcome == errno.EINPROGRESS else outcome


def scan(job):
    """The open ports of a slice of one address."""
    address, first, last, timeout = job
    found, waiting, poller = [], {}, select.epoll()
    port, deadlines, probe = first, collections.deque(), None
    while port <= last or waiting:
        while port <= last and len(waiting) < AT_ONCE:
            probe = probe or socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            outcome = connect(probe, (address, port))
            if outcome == errno.EALREADY:
                waiting[probe.fileno()] = (probe, port)
                deadlines.append((time.monotonic() + timeout, probe.fileno(), port))
                poller.register(probe, select.EPOLLOUT)
                probe = None
            elif outcome == 0:
                found.append(port)
                probe.close()
                probe = None
            elif outcome == errno.ENETUNREACH:
                return address, found  # no way there at all, whatever the port
            elif outcome not in SETTLED:
                raise OSError(outcome, f"{address}:{port}")
            port += 1
        for number, _event in poller.poll(0.02, AT_ONCE):
            answered, tried = waiting.pop(number)
            if answered.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(tried)
            poller.unregister(number)
            answered.close()
        while deadlines:
            deadline, number, tried = deadlines[0]
            unanswered = waiting.get(number, (None, None))[1] == tried
            if unanswered and time.monotonic() < deadline:
                break
            deadlines.popleft()
            if unanswered:
                silent, _port = waiting.pop(number)
                poller.unregister(number)
                silent.close()
    return address, found


def main():
    """Does what standard input asks for."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
    asked = json.load(sys.stdin)
    for address, port, text in asked.get("udp", []):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.sendto(text.encode(), (address, port))
    jobs = []
    for address, (first, last) in asked.get("tcp", {}).items():
        half = (first + last) // 2
        jobs += [(address, first, half, asked["timeout"]), (address, half + 1, last, asked["timeout"])]
    found = {address: [] for address in asked.get("tcp", {})}
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for address, ports in pool.imap_unordered(scan, jobs):
            found[address] += ports
    json.dump({address: sorted(ports) for address, ports in found.items()}, sys.stdout)


if __name__ == "__main__":
    main()
