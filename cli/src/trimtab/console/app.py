"""The console as one table of addresses, with what stands around every request."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..asking import Ends, Heard, ask
from ..errors import NotAllowed, Problem
from ..kinds import kind_named
from ..text import clean
from .addresses import ALL, page_path
from .callers import Caller, OfProvider
from .context import KINDS, Context
from .feeds import TooMany
from .guard import Guard
from .room import Room, send_in_parts
from .streams import Changes, Words
from .views import playground, reading, reports, writing
from .views.forms import check_form, read_form
from .views.responding import assets, prepare, redirect, set_session, status_of, templates
from .views.signing import CALLBACK, SIGN_IN, SIGN_OUT, SIGNED_OUT, Signing, way_in
from .visits import NotSignedIn

STREAMS, STREAMS_OF_ONE = 512, 128
QUESTIONS, QUESTIONS_OF_ONE = 64, 4
"""That are answered at the same time: of all users, and of one."""
THREADS_OF_ONE = 8
"""In which what one user asks for is made at the same time, of 40; more of it waits without one."""
REPORTS, REPORTS_OF_ONE = 4, 2
"""That are in memory at the same time: of all users, and of one; a report has 16 MiB at most."""
ASSET_SECONDS = 31_536_000
SERVED = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".woff2": "font/woff2"}
OBJECT = "/ns/{namespace}/{plural}/{name}"

Read = Callable[[Context, Request], Response]
Write = Callable[[Context, Request, Mapping[str, str]], Response]
Value = TypeVar("Value")


class Console:
    """The application; `end` ends what is streamed, which nothing else would."""

    def __init__(self, context: Context, hosts: Collection[str]) -> None:
        self._context = context
        self._over: dict[asyncio.Event, str] = {}
        self._questions: list[str] = []
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._reports = Room(REPORTS, REPORTS_OF_ONE)
        reads: tuple[tuple[str, Read], ...] = (
            ("/", reading.begin),
            ("/ns/{namespace}", reading.show_overview),
            ("/ns/{namespace}/compare", reading.show_compare),
            ("/ns/{namespace}/approvals", reading.show_approvals),
            ("/ns/{namespace}/playground", playground.show_playground),
            ("/ns/{namespace}/new", writing.show_new),
            ("/ns/{namespace}/{plural}", reading.show_list),
            (OBJECT, reading.show_object),
            (f"{OBJECT}/manifest", reading.show_manifest),
            (f"{OBJECT}/events", reading.show_events),
            (f"{OBJECT}/log", reading.show_log),
            (f"{OBJECT}/back", writing.show_back),
            (f"{OBJECT}/reports/{{which}}", reports.show_report),
        )
        writes: tuple[tuple[str, Write], ...] = (
            (f"{OBJECT}/back", writing.go_back),
            (f"{OBJECT}/{{verb}}", writing.hold),
            ("/ns/{namespace}/approvals", writing.decide),
            ("/ns/{namespace}/new", writing.make),
        )
        self.app = Starlette(
            routes=[
                Route("/healthz", _alive),
                Route("/login", self._login),
                Route("/go", _go),
                Route("/assets/{name:path}", _asset),
                Route("/ns/{namespace}/changes", _Called(self.stream)),
                Route(f"{OBJECT}/answers", self._answers, methods=["POST"]),
                Route(f"{OBJECT}/preferences", self._preferences, methods=["POST"]),
                Route(f"{OBJECT}/reports/{{which}}/page", _Called(self.report)),
                *self._of_signing(),
                *(Route(path, functools.partial(self._read, view), methods=["GET"]) for path, view in reads),
                *(Route(path, functools.partial(self._write, view), methods=["POST"]) for path, view in writes),
            ],
            middleware=[Middleware(Guard, hosts=hosts)],
            exception_handlers={Problem: self._problem, HTTPException: self._http},
            lifespan=self._lifespan,
        )

    def end(self) -> None:
        """End all streams; called in the loop's thread."""
        for over in self._over:
            over.set()

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(1)
                self._context.feeds.sweep()

        await run_in_threadpool(prepare)
        sweeper = asyncio.create_task(sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            self.end()
            self._context.feeds.close()

    async def _read(self, view: Read, request: Request) -> Response:
        return await self._made(await self._caller(request), view, request)

    async def _made(self, caller: Caller, view: Callable[..., Value], *given: Any) -> Value:
        """Return what a view makes, in another thread: an engine or API server may be silent for long."""
        async with self._turns.setdefault(caller.key, asyncio.Semaphore(THREADS_OF_ONE)):
            return await run_in_threadpool(view, self._context, *given)

    async def _caller(self, request: Request) -> Caller:
        """Return who asks, in another thread: a provider may be asked for newer tokens."""
        return await run_in_threadpool(self._context.caller, request)

    async def _write(self, view: Write, request: Request) -> Response:
        if view is writing.hold and request.path_params["verb"] not in ("suspend", "resume"):
            raise HTTPException(404)
        caller = await self._caller(request)  # nobody's form is not even read
        return await self._made(caller, view, request, await read_form(request))

    async def _answers(self, request: Request) -> ASGIApp:
        """Answer a question in the words of models as they come; a refusal is JSON, for the page's script."""
        try:
            caller = await self._caller(request)  # nobody's form is not even read
            form = await read_form(request)
            question = await self._made(caller, playground.the_question, request, form)
            if len(self._questions) >= QUESTIONS or self._questions.count(caller.key) >= QUESTIONS_OF_ONE:
                raise TooMany("too many questions are being answered", "wait for an answer")
        except Problem as problem:
            return _told(problem)
        over = asyncio.Event()
        self._over[over] = caller.key
        self._questions.append(caller.key)

        def left() -> None:
            self._over.pop(over, None)
            self._questions.remove(caller.key)

        def ask_all(heard: Heard, ends: Ends) -> None:
            ask(
                question.engine, question.models, question.text, question.settings,
                chat=question.chat, heard=heard, ends=ends,
            )  # fmt: skip

        return Words(ask_all, over, left)

    async def _preferences(self, request: Request) -> Response:
        """Store what a person prefers; answers are JSON, for the page's script."""
        try:
            caller = await self._caller(request)  # nobody's form is not even read
            return await self._made(caller, playground.prefer, request, await read_form(request))
        except Problem as problem:
            return _told(problem)

    def _of_signing(self) -> list[Route]:
        """Return the addresses of signing in and out, where people do that here."""
        if not isinstance(self._context.callers, OfProvider):
            return []
        signing = Signing(self._context, self._context.callers.visits)

        def asked(view: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
            async def answer(request: Request) -> Response:
                return await run_in_threadpool(view, request)

            return answer

        async def leave(request: Request) -> Response:
            caller = await self._caller(request)
            check_form(self._context, caller, await read_form(request))
            for over, key in self._over.items():
                if key == caller.key:
                    over.set()
            return signing.leave(request, caller)

        return [
            Route(SIGN_IN, asked(signing.begin), methods=["GET"]),
            Route(CALLBACK, asked(signing.end), methods=["GET"]),
            Route(SIGN_OUT, leave, methods=["POST"]),
            Route(SIGNED_OUT, asked(signing.left), methods=["GET"]),
        ]

    async def _login(self, request: Request) -> Response:
        session = self._context.sessions.redeem(request.query_params.get("token", ""))
        if session is None:
            raise NotAllowed("this address was used already, or is not whole", "start kubectl trimtab ui again")
        response = RedirectResponse("/", 303)
        set_session(self._context, response, session)
        return response

    async def _problem(self, request: Request, error: Exception) -> Response:
        problem = error if isinstance(error, Problem) else Problem(str(error))
        if isinstance(problem, NotSignedIn) and request.method == "GET":
            if "hx-request" in request.headers:  # a part of a live page: the whole of it is asked for again
                return PlainTextResponse("", 403, {"HX-Refresh": "true"})
            if request.headers.get("sec-fetch-dest", "document") == "document":
                return RedirectResponse(way_in(request), 303)
        return await run_in_threadpool(_refusal, status_of(problem), clean(problem.sentence), clean(problem.next_step))

    async def _http(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return _refusal(status, "there is no such page" if status == 404 else "this cannot be done here", "go back")

    async def report(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give a report to its frame, as long as there is room for it."""
        request = Request(scope, receive)
        if request.method not in ("GET", "HEAD"):
            raise HTTPException(405)
        caller = await self._caller(request)
        try:
            async with self._reports.place(caller.key):
                answer = await self._read(reports.show_content, request)
                await send_in_parts(answer, scope, receive, send)
        except TooMany as problem:
            await reports.refusal(problem)(scope, receive, send)

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell a page of changes in its namespace; of the kind of `about` only those of that object."""
        request = Request(scope, receive)
        caller, namespace = await run_in_threadpool(reading.asked, self._context, request)
        if len(self._over) >= STREAMS or list(self._over.values()).count(caller.key) >= STREAMS_OF_ONE:
            raise TooMany("too many pages are open", "close some")
        plural, _, name = request.query_params.get("about", "").partition("/")
        changed, over, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

        def heard(of: str, which: str) -> None:
            if of and of == plural and which not in ("", name):
                return
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the page with it
                loop.call_soon_threadsafe((changed if of else over).set)

        kinds = [kind_named(each) for each in KINDS]
        leave = self._context.feeds.listen(caller, kinds, namespace, heard)
        self._over[over] = caller.key

        def left() -> None:
            self._over.pop(over, None)
            leave()

        await Changes(changed, over, left)(scope, receive, send)


class _Called:
    """An ASGI application, which a Route takes as it is: of a method it would make a view."""

    def __init__(self, called: ASGIApp) -> None:
        self._called = called

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._called(scope, receive, send)


async def _alive(request: Request) -> Response:
    return PlainTextResponse("ok")


async def _go(request: Request) -> Response:
    """Go to the namespace that a person chose, on the page that they were on."""
    namespace, part = request.query_params.get("namespace", "").strip(), request.query_params.get("part", "")
    return redirect(page_path(namespace or ALL, *([part] if part else [])))


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    kind = SERVED.get(PurePosixPath(name).suffix)
    if kind is None or name not in assets():
        raise HTTPException(404)
    headers = {"Cache-Control": f"public, max-age={ASSET_SECONDS}, immutable"}
    return Response(assets()[name], media_type=kind, headers=headers)


def _told(problem: Problem) -> Response:
    """Return a refusal for a script, which shows it as text."""
    return JSONResponse({"sentence": problem.sentence, "next_step": problem.next_step}, status_of(problem))


def _refusal(status: int, sentence: str, next_step: str) -> Response:
    text = templates().get_template("problem.html").render(status=status, sentence=sentence, next_step=next_step)
    return Response(text, status, media_type="text/html")
