"""The ASGI application: the plain form, the Open Inference Protocol, the page, and what watches the server."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from time import perf_counter
from typing import Any, TypeVar

from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import EngineError
from engine.fusion.evidence import Evidence
from engine.serve import answers, bodies, protocol
from engine.serve.batching import Batcher, Group
from engine.serve.bounds import Bounds
from engine.serve.observed import CONTENT_TYPE_LATEST, Observed
from engine.serve.openapi import document
from engine.serve.plan import Answer, ServedPlan
from engine.serve.refusals import Refused, status_of
from engine.serve.tensors import LENGTH_HEADER
from engine.utils.console import first_line, one_line

Handler = Callable[[Request], Awaitable[Response]]
Found = TypeVar("Found")
JSON, OCTETS = "application/json", "application/octet-stream"
MOST_UPLOAD, MOST_REQUESTS = 64_000_000, 256
# Threads that decode and encode; they let go of the interpreter's lock.
CODERS = 2
# Less is decoded or encoded faster than it is handed to another thread.
SMALL = 1 << 16
PAGE = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
# The page loads nothing from other hosts, and nothing in it runs but its own script.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
log = logging.getLogger(__name__)


class Server:
    """A plan behind HTTP, as an ASGI application; any ASGI server runs it.

    Attributes:
        plan: what is served.
        bounds: what is taken at once.
        draining: set once the server is about to stop: it is no longer ready, and closes each connection.
    """

    def __init__(self, plan: ServedPlan, upload: int = MOST_UPLOAD, requests: int = MOST_REQUESTS) -> None:
        """Prepare the routes; the workers start and end with the application.

        Args:
            plan: the open plan.
            upload: largest body of a request in bytes.
            requests: most open requests; more are refused with 503.
        """
        self.plan, self.bounds, self.draining = plan, Bounds(plan, upload, requests), False
        self._observed = Observed(plan)
        self._batcher: Batcher | None = None
        self._coders: ThreadPoolExecutor | None = None
        self._outputs = protocol.outputs_of(plan)
        self._texts = {name: files("engine.serve").joinpath(name).read_bytes() for name in PAGE}
        model = "/v2/models/{name}"
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/", self._page("page.html")),
            *(("GET", f"/{name}", self._page(name)) for name in ("page.css", "page.js")),
            ("GET", "/plan", self._told),
            ("POST", "/predict", self._predict),
            ("GET", "/metrics", self._metrics),
            ("GET", "/openapi.json", self._openapi),
            ("GET", "/v2", self._server_metadata),
            ("GET", "/v2/health/live", self._live),
            ("GET", "/v2/health/ready", self._ready),
        ]
        for path in (model, model + "/versions/{version}"):
            routes += [
                ("GET", path, self._model_metadata),
                ("GET", path + "/ready", self._model_ready),
                ("POST", path + "/infer", self._infer),
            ]
        self.app = Starlette(
            routes=[Route(path, self._observing(path, handler), methods=[method]) for method, path, handler in routes],
            exception_handlers={HTTPException: _http_error},
            lifespan=self._lifespan,
        )
        self.app.router.redirect_slashes = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, as ASGI asks."""
        await self.app(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._batcher = Batcher(self.plan, self._observed.batch)
        self._observed.follow(self._batcher, self.bounds)
        with ThreadPoolExecutor(CODERS, thread_name_prefix="maskfuse-coder") as self._coders:
            try:
                yield
            finally:
                await asyncio.to_thread(self._batcher.close)

    def _observing(self, path: str, handler: Handler) -> Handler:
        """Return a handler that counts, and whose errors are one line of JSON."""

        async def handle(request: Request) -> Response:
            began = perf_counter()
            try:
                response = await handler(request)
            except EngineError as error:
                response = problem(status_of(error), str(error), error.headers if isinstance(error, Refused) else None)
            except MemoryError:
                response = problem(503, "not enough memory: try again later, or send a smaller image")
            except Exception as error:  # a bug: one line for the client, the traceback for the log
                log.exception("%s %s", request.method, path)
                response = problem(500, f"internal error ({first_line(error, kind=True)})")
            if self.draining:
                response.headers["Connection"] = "close"
            self._observed.request(path, response.status_code, perf_counter() - began)
            return response

        return handle

    async def _coded(self, size: int, function: Callable[..., Found], *arguments: Any) -> Found:
        """Call a function that decodes or encodes so many bytes: in a thread, unless they are few."""
        if size <= SMALL:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._coders, function, *arguments)

    async def _predicted(self, images: NDArray[Any], evidence: Evidence) -> list[Answer]:
        """Return the answers for images, once a worker has taken them.

        Raises:
            EngineError: the first error of an image.
        """
        assert self._batcher is not None
        self.plan.check(images)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Group] = loop.create_future()

        def finish(group: Group) -> None:
            if not future.done():
                future.set_result(group)

        def tell(group: Group) -> None:
            loop.call_soon_threadsafe(finish, group)

        self._batcher.submit(Group(images, evidence, tell))
        done: list[Answer] = []
        for index, result in enumerate((await future).results):
            if isinstance(result, EngineError):
                where = f"image {index}: " if len(images) > 1 else ""
                raise Refused(status_of(result), f"{where}{result}")
            done.append(result)
        return done

    async def _predict(self, request: Request) -> Response:
        asked = answers.asked(request.query_params, request.headers.get("accept", ""), self.plan)
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise Refused(415, "multipart forms are not read: send the picture itself, as in curl --data-binary @FILE")
        with self.bounds.place(bodies.declared_length(request)) as place:
            body = await bodies.read_body(request, place, self.bounds)
            if bodies.is_numpy(body):
                upload = bodies.array(body, self.plan, self.bounds)
            else:
                upload = await self._coded(SMALL + 1, bodies.picture, body, self.plan, place, self.bounds)
            found = await self._predicted(upload.images, asked.evidence)
            media = asked.chosen(upload.is_array)
            size = 0 if media == answers.NPY and asked.result == "mask" else SMALL + 1
            content = await self._coded(size, answers.encoded, asked, media, found, upload.alone, self.plan)
        headers = {"Maskfuse-Plan": self.plan.sha256}
        if upload.notes:
            headers["Maskfuse-Note"] = one_line("; ".join(upload.notes)).encode("ascii", "replace").decode()
        return Response(content, 200, headers, media)

    async def _infer(self, request: Request) -> Response:
        self._check_name(request)
        with self.bounds.place(bodies.declared_length(request)) as place:
            body = await bodies.read_body(request, place, self.bounds)
            length = request.headers.get(LENGTH_HEADER)
            head = len(body) if length is None else 0
            asked = await self._coded(head, protocol.wanted, body, length, self.plan, self._outputs)
            height, width, channels = asked.images.shape[1:]
            self.bounds.check_image((height, width), channels, asked.images.itemsize)
            found = await self._predicted(asked.images, asked.evidence)
            binary = all(binary for _, binary in asked.outputs)
            size = 0 if binary else asked.images.size * len(asked.outputs)
            content, head_length = await self._coded(size, protocol.response, asked, found, self.plan)
        if head_length is None:
            return Response(content, 200, media_type=JSON)
        return Response(content, 200, {"Inference-Header-Content-Length": str(head_length)}, OCTETS)

    def _check_name(self, request: Request) -> None:
        protocol.check_name(self.plan, request.path_params["name"], request.path_params.get("version"))

    async def _server_metadata(self, request: Request) -> Response:
        return told(protocol.server_metadata())

    async def _live(self, request: Request) -> Response:
        return told({"live": True})

    async def _ready(self, request: Request) -> Response:
        return told({"ready": not self.draining}, 503 if self.draining else 200)

    async def _model_metadata(self, request: Request) -> Response:
        self._check_name(request)
        return told(protocol.model_metadata(self.plan, self._outputs))

    async def _model_ready(self, request: Request) -> Response:
        self._check_name(request)
        return told({"name": self.plan.name, "ready": not self.draining}, 503 if self.draining else 200)

    async def _told(self, request: Request) -> Response:
        return told(described(self.plan))

    async def _metrics(self, request: Request) -> Response:
        return Response(self._observed.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _openapi(self, request: Request) -> Response:
        return told(document(self.plan))

    def _page(self, name: str) -> Handler:
        async def page(request: Request) -> Response:
            headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
            return Response(self._texts[name], 200, headers, PAGE[name])

        return page


def described(plan: ServedPlan) -> dict[str, Any]:
    """Return what is served, for the page and for people."""
    return {
        "name": plan.name,
        "sha256": plan.sha256,
        "classes": answers.described(plan),
        "members": [{"name": member.name, "sha256": member.checksum} for member in plan.ensemble.members],
        "strategy": plan.ensemble.variant.strategy,
        "results": [name for name in answers.RESULTS if _gives(plan, name)],
        "exif": plan.input.exif,
    }


def _gives(plan: ServedPlan, result: str) -> bool:
    evidence = {"scores": Evidence(scores="float16"), "doubt": Evidence(doubt="entropy")}
    return result not in evidence or plan.shows(evidence[result])


def told(value: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(json.dumps(value).encode(), status, media_type=JSON)


def problem(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error as one line of JSON."""
    return Response(json.dumps({"error": one_line(text)}).encode(), status, headers, JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer what no route takes."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:80]
    text = {404: f"nothing at {path}: GET /openapi.json lists all", 405: f"{path} does not take {request.method}"}
    return problem(error.status_code, text.get(error.status_code, error.detail), dict(error.headers or {}))
