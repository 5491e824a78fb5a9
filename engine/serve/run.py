"""Runs the application under uvicorn: one process, one event loop, and an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from engine.errors import PlanError
from engine.models.runtimes import RuntimeOptions
from engine.serve.app import MOST_REQUESTS, MOST_UPLOAD, Server
from engine.serve.plan import ServedPlan
from engine.utils import console

# How long connections without a request stay open once the server stops: requests that are on their way still arrive.
FAREWELL = 0.5
LOCAL = ("127.0.0.1", "localhost", "::1")
BACKLOG = 2048
MOST_PORT = 65535


@dataclass(frozen=True)
class ServeOptions:
    """The user's options.

    Attributes:
        plan: an ensemble.toml, an .onnx file or a folder.
        name: what clients call the model; empty for the plan's name.
        host: address to listen on.
        port: port to listen on; 0 for any that is free.
        requests: most open requests.
        upload: largest body in bytes.
        runtime: provider, runtime and precision.
        batch_size: images per batch; 0 to choose.
        workers: batches that run at once; 0 for one per core.
        grey_as_rgb: allow grey images for nets of three channels.
        image_layout: axes of arrays, where their shape leaves them open.
    """

    plan: Path
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    requests: int = MOST_REQUESTS
    upload: int = MOST_UPLOAD
    runtime: RuntimeOptions | None = None
    batch_size: int = 0
    workers: int = 0
    grey_as_rgb: bool = False
    image_layout: str = ""


def serve(options: ServeOptions) -> None:
    """Serve a plan until SIGTERM or Ctrl-C; then answer every request that was accepted.

    Raises:
        EngineError: the plan cannot be opened, or the address cannot be listened on.
    """
    if options.requests < 1:
        raise PlanError(f"--queue {options.requests}: at least 1 request")
    listening = listen(options.host, options.port)
    with listening:
        plan = ServedPlan.open(
            options.plan,
            name=options.name,
            runtime_options=options.runtime,
            batch_size=options.batch_size,
            workers=options.workers,
            grey_as_rgb=options.grey_as_rgb,
            image_layout=options.image_layout,
        )
        server = Server(plan, options.upload, options.requests)
        GracefulServer(server, listening).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, before anything is opened.

    Raises:
        PlanError: the address is taken, or there is none of that name.
    """
    if not 0 <= port <= MOST_PORT:  # the system would take it modulo 65536
        raise PlanError(f"--port {port}: give a number from 1 to {MOST_PORT}, or 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise PlanError(f"--host {host} --port {port}: {getattr(error, 'strerror', None) or error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise PlanError(
            f"cannot listen on {host}:{port} ({error.strerror or error}): choose another --port or --host"
        ) from None
    return listening


def address_of(listening: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class GracefulServer(uvicorn.Server):
    """uvicorn, which says when it is ready and gives requests on their way a moment before it closes connections."""

    def __init__(self, server: Server, listening: socket.socket) -> None:
        config = uvicorn.Config(
            server, log_level="warning", access_log=False, lifespan="on", backlog=BACKLOG, server_header=False
        )
        super().__init__(config)
        self._server, self._address = server, address_of(listening)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and say so."""
        await super().startup(sockets)
        if self.should_exit:
            return
        plan = self._server.plan
        for line in plan.told:
            console.say(line)
        console.say(f"serving {plan.name} at {self._address} ({plan.workers} workers); Ctrl-C or SIGTERM stops it")
        if not any(name in self._address for name in LOCAL):
            console.say("warning: other machines can reach it, and it asks for no password: put a proxy in front of it")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and Ctrl-C; uvicorn would raise them again at the end, as if the stop had failed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, tell clients to close theirs, and answer what is open."""
        self._server.draining = True
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        quiet = loop.time()
        while loop.time() - quiet < FAREWELL and self._connected() and not self.force_exit:
            if self._server.bounds.open_requests:
                quiet = loop.time()
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        console.say("stopped; every request was answered" if not self.force_exit else "stopped")

    def _connected(self) -> bool:
        connections: set[Any] = self.server_state.connections
        return bool(connections)
