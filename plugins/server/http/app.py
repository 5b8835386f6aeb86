"""The routes of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from gentext.errors import SessionError
from gentext.plugins.server.http import docs
from gentext.plugins.server.http.answering import Answering, EventStream, while_connected
from gentext.plugins.server.http.api_keys import ApiKeys
from gentext.plugins.server.http.completions import CompletionAnswer
from gentext.plugins.server.http.guards import Guards, read_json
from gentext.plugins.server.http.pages import page_routes
from gentext.plugins.server.http.requests import read_best, read_completion, read_score
from gentext.plugins.server.logs import LogWriter, record_of
from gentext.plugins.server.problems import Problem, problem_of
from gentext.plugins.server.settings import Limits
from gentext.plugins.server.tasks.messages import Failed
from gentext.plugins.server.tasks.models import Job, Models, ServedModel
from gentext.plugins.server.tasks.workers import Part, Task
from gentext.sessions.session_keys import SessionKeys

#: The page of the API.
DOCS = docs.render_page()
Result = TypeVar("Result")


class Server:
    """What all routes share."""

    def __init__(self, models: Models, limits: Limits, session_keys: SessionKeys) -> None:
        self.models, self.limits, self.session_keys = models, limits, session_keys
        self.is_draining = False
        """Whether the server ends as soon as the texts under way have ended."""

    def application(self, hosts: Collection[str], keys: ApiKeys | None, log: LogWriter) -> ASGIApp:
        """Return the ASGI application, with all that `Guards` and `Answering` do around it."""
        routes = [
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/models", self.list_models),
            Route("/v1/models/{name:path}", self.show_model),
            Route("/score", self.score, methods=["POST"]),
            Route("/best", self.search, methods=["POST"]),
            Route("/health", self.show_health),
            Route("/ready", self.show_readiness),
            Route("/metrics", self.show_metrics),
            Route("/docs", self.show_docs),
        ]
        pages = page_routes()
        routes += pages
        methods_by_route = {route.path: route.methods or () for route in routes}
        guarded = Guards(Router(routes), methods_by_route, self.limits, hosts, keys, {page.path for page in pages})
        return Answering(guarded, log, self.models.metrics)

    async def complete(self, request: Request) -> ASGIApp:
        """``/v1/completions``."""
        body = await self._read_body(request)
        model = self.models.find(read_name(body))
        model.check_ready()
        try:
            completion = read_completion(body, model.group.model, self.limits, self.session_keys)
        except SessionError as error:
            raise problem_of(error) from None
        record = record_of(request.scope)
        answer = CompletionAnswer(record, completion, model, self.limits, self.session_keys)
        if completion.fields.stream:
            return EventStream(answer.events(), answer.end)
        return json_response(await while_connected(request.receive, answer.body()))

    async def score(self, request: Request) -> Response:
        """``/score``."""
        name, job = read_score(await self._read_body(request), self.limits)
        return await self._answer_job(request, self.models.find(name), job)

    async def search(self, request: Request) -> Response:
        """``/best``."""
        name, job = read_best(await self._read_body(request), self.limits)
        return await self._answer_job(request, self.models.find(name), job)

    async def _answer_job(self, request: Request, model: ServedModel, job: Job) -> Response:
        """Return the answer to a job that has one part."""
        record_of(request.scope).model = model.name
        part: asyncio.Future[Part] = asyncio.get_running_loop().create_future()

        def receive(_: Task, received: Part) -> None:
            if not part.done():
                part.set_result(received)

        tasks = model.submit([job], receive)
        end = asyncio.get_running_loop().call_later(
            2 * self.limits.request_seconds, model.cut, tasks, "the time of the request is over"
        )
        try:
            reply = await while_connected(request.receive, _wait_for(part))
        finally:
            end.cancel()
            model.end(tasks)
        if isinstance(reply, Failed):
            raise Problem(reply.status, reply.message, parameter=reply.parameter)
        return json_response(reply.result)  # type: ignore[union-attr]

    async def list_models(self, request: Request) -> Response:
        """``/v1/models``."""
        return json_response({"object": "list", "data": [_describe(model) for model in self.models.by_name.values()]})

    async def show_model(self, request: Request) -> Response:
        """``/v1/models/NAME``."""
        return json_response(_describe(self.models.find(request.path_params["name"])))

    async def show_health(self, request: Request) -> Response:
        """``/health``: the process answers."""
        return json_response({"status": "ok"})

    async def show_readiness(self, request: Request) -> Response:
        """``/ready``: 503 while files are loaded, and while the server drains."""
        if self.is_draining:
            return json_response({"status": "draining"}, 503)
        is_ready = self.models.is_ready
        return json_response({"status": "ready" if is_ready else "loading"}, 200 if is_ready else 503)

    async def show_metrics(self, request: Request) -> Response:
        """``/metrics``, for Prometheus."""
        content, content_type = self.models.metrics.expose()
        return Response(content, headers={"Content-Type": content_type})

    async def show_docs(self, request: Request) -> Response:
        """``/docs``: the page of the API."""
        return Response(DOCS, headers={"Content-Security-Policy": docs.POLICY}, media_type="text/html")

    async def _read_body(self, request: Request) -> dict[str, Any]:
        if self.is_draining:
            raise Problem(503, "the server is about to end; send the request again", headers={"Retry-After": "1"})
        return await read_json(request.receive)


def read_name(body: dict[str, Any]) -> str | None:
    """Return the name of the model that a body asks for. Raises Problem where it is no text."""
    name = body.get("model")
    if not isinstance(name, str | None):
        raise Problem(400, f"model = {name!r}: expected a text", parameter="model")
    return name


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def _describe(model: ServedModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.loaded_at, "owned_by": "gentext", **model.group.model}


async def _wait_for(future: asyncio.Future[Result]) -> Result:
    return await future
