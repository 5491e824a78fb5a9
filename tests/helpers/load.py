"""Many clients of an HTTP server in one cheap process: raw sockets, each answer compared byte by byte."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

END = b"\r\n\r\n"


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a request as it goes over the wire."""
    head = [f"POST {path} HTTP/1.1", "Host: server", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + END + body


@dataclass
class Client:
    """One connection; it sends a request, waits for the answer, sends the next."""

    sock: socket.socket
    asked: int = 0
    sent_at: float = 0.0
    left: memoryview = field(default_factory=lambda: memoryview(b""))
    got: bytearray = field(default_factory=bytearray)
    needed: int = 0
    open: bool = True


@dataclass
class Loaded:
    """What came back.

    Attributes:
        seconds: how long the load lasted.
        latencies: seconds from request to answer, of each answer with status 200.
        finished: when each of these came, in seconds since the start.
        statuses: how many answers there were of each status.
        wrong: answers that are not the expected ones.
        lost: requests whose connection ended in the middle of an answer, or after it had taken all of the request and
            without one.
        refused: connections that the server no longer took.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: int = 0
    lost: int = 0
    refused: int = 0

    def rate(self, first: float, last: float) -> float:
        """Return answers per second between two moments, so that neither the start nor the end counts."""
        return sum(first < moment <= last for moment in self.finished) / (last - first)

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies in milliseconds."""
        return 1000 * float(np.percentile(self.latencies, share))


def load(
    address: tuple[str, int],
    requests: Sequence[bytes],
    expected: Sequence[bytes],
    clients: int,
    seconds: float,
    count: int = 0,
    reconnect: bool = True,
) -> Loaded:
    """Ask as many clients do, each for one image after the other.

    Args:
        address: of the server.
        requests: what is asked, in turn.
        expected: the body of the answer to each.
        clients: open connections.
        seconds: for how long; open requests are waited for.
        count: end after so many requests in place of a time; 0 for none.
        reconnect: open a new connection where the server closed one.
    """
    found, began, turn = Loaded(), perf_counter(), 0
    selector = selectors.DefaultSelector()

    def ask(client: Client) -> None:
        nonlocal turn
        over = perf_counter() - began > seconds if not count else turn >= count
        if over:
            close(client)
            return
        client.asked, client.sent_at = turn % len(requests), perf_counter()
        turn += 1
        client.left, client.needed = memoryview(requests[client.asked]), 0
        client.got.clear()
        send(client)

    def send(client: Client) -> None:
        try:
            client.left = client.left[client.sock.send(client.left) :]
        except BlockingIOError:
            pass
        except OSError:
            found.lost += 1
            close(client)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.left else 0)
        if selector.get_key(client.sock).events != events:
            selector.modify(client.sock, events, client)

    def close(client: Client) -> None:
        selector.unregister(client.sock)
        client.sock.close()
        client.open = False

    def connect() -> None:
        try:
            sock = socket.create_connection(address)
        except OSError:
            found.refused += 1
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        client = Client(sock)
        selector.register(sock, selectors.EVENT_READ, client)
        ask(client)

    def receive(client: Client) -> None:
        try:
            data = client.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            found.lost += 1
            close(client)
            if reconnect:
                connect()
            return
        client.got += data
        if not client.needed:
            at = client.got.find(END)
            if at < 0:
                return
            head = bytes(client.got[:at]).lower()
            length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            client.needed = at + len(END) + int(length)
        if len(client.got) >= client.needed:
            answer(client)

    def answer(client: Client) -> None:
        at = client.got.find(END)
        head = bytes(client.got[:at])
        status = int(head.split(b" ", 2)[1])
        found.statuses[status] = found.statuses.get(status, 0) + 1
        if status == 200:
            now = perf_counter()
            found.latencies.append(now - client.sent_at)
            found.finished.append(now - began)
            found.wrong += client.got[at + len(END) :] != expected[client.asked]
        if b"\nconnection: close" in head.lower():
            close(client)
            if reconnect:
                connect()
        else:
            ask(client)

    for _ in range(clients):
        connect()
    while selector.get_map():
        for key, events in selector.select():
            client = key.data
            if client.open and events & selectors.EVENT_WRITE:
                send(client)
            if client.open and events & selectors.EVENT_READ:
                receive(client)
    found.seconds = perf_counter() - began
    return found
