"""The HTTP around a `catalogs.serve.service.Service`: addresses, formats, errors, limits. Nothing can be written through it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio
import pyarrow as pa
import pyarrow.csv as pacsv
from astropy.units import UnitsWarning
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalogs.formats import to_astropy
from catalogs.serve.limits import Busy, NotThere, UsageFault, told
from catalogs.serve.obscore import FITS, PNG
from catalogs.serve.params import Parameters
from catalogs.serve.service import Service, content_security_policy
from catalogs.serve.votable import Answer, error_document, pieces

T = TypeVar("T")

VOTABLE, XML, CSV, TABLE_FITS = "application/x-votable+xml", "text/xml", "text/csv", "application/fits"
RESPONSE_FORMATS = {
    "votable": VOTABLE,
    VOTABLE: VOTABLE,
    f"{VOTABLE};serialization=tabledata": VOTABLE,
    XML: XML,
    "csv": CSV,
    CSV: CSV,
    "fits": TABLE_FITS,
    TABLE_FITS: TABLE_FITS,
}
_FILE = re.compile(r"(-?\d{1,19})\.(fits|png)")
_TABLE_PATHS = ("/scs", "/sia")


def create_app(service: Service, hosts: Sequence[str], base: str = "") -> FastAPI:
    """The application that a server runs.

    Parameters
    ----------
    service : Service
    hosts : sequence of str
        Names under which the service may be addressed (``*`` for any): a page of another site whose name was made to point here
        is turned away.
    base : str
        Address that is written into answers; by default the one that the client used.
    """
    # no pages about the interface: they load scripts from elsewhere
    app = FastAPI(title="galpipe serve", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(Guard, most=service.limits.query_characters)
    _add_tables(app, service, base)
    _add_files(app, service)
    _add_descriptions(app, service, base)
    _add_errors(app)
    return app


def _add_tables(app: FastAPI, service: Service, base: str) -> None:
    @app.get("/scs")
    async def scs(request: Request) -> Response:
        parameters = Parameters(request.query_params.multi_items())
        form = parameters.choice("RESPONSEFORMAT", RESPONSE_FORMATS, VOTABLE)
        return await _work(service, lambda: _table(service.cone(parameters), form))

    @app.get("/sia")
    async def sia(request: Request) -> Response:
        parameters = Parameters(request.query_params.multi_items())
        form = parameters.choice("RESPONSEFORMAT", RESPONSE_FORMATS, VOTABLE)
        return await _work(service, lambda: _table(service.images(parameters, _base(request, base)), form))


def _add_files(app: FastAPI, service: Service) -> None:
    @app.get("/cutout")
    async def cutout(request: Request) -> Response:
        parameters = Parameters(request.query_params.multi_items())
        content = await _work(service, lambda: service.cutout(parameters))
        # SODA: nothing in common with the stamp is an answer, not an error
        return Response(content, media_type=FITS) if content is not None else Response(status_code=204)

    @app.get("/stamps/{file}")
    async def stamp(file: str) -> Response:
        named = _FILE.fullmatch(file)
        if not named or not -(2**63) <= int(named.group(1)) < 2**63:
            raise NotThere("a file <source_id>.fits or <source_id>.png", "another name")
        form = FITS if named.group(2) == "fits" else PNG
        content = await _work(service, lambda: service.stamp(int(named.group(1)), form))
        return Response(content, media_type=form, headers={"Content-Disposition": f'inline; filename="{file}"'})


def _add_descriptions(app: FastAPI, service: Service, base: str) -> None:
    @app.get("/")
    async def page(request: Request) -> Response:
        return HTMLResponse(await _work(service, lambda: service.page(_base(request, base))))

    @app.get("/capabilities")
    async def capabilities(request: Request) -> Response:
        return Response(await _work(service, lambda: service.capabilities(_base(request, base))), media_type=XML)

    @app.get("/availability")
    async def availability() -> Response:
        return Response(await _work(service, service.availability), media_type=XML)

    @app.get("/tables")
    async def tables() -> Response:
        return Response(await _work(service, service.tables), media_type=XML)


def _add_errors(app: FastAPI) -> None:
    statuses: dict[type[Exception], int] = {UsageFault: 400, NotThere: 404, Busy: 503}

    async def expected(request: Request, error: Exception) -> Response:
        assert isinstance(error, UsageFault | NotThere | Busy)  # noqa: S101
        return _error(request, statuses[type(error)], told(error))

    async def unexpected(request: Request, error: Exception) -> Response:
        # the server's log has the traceback; files and code of this machine are nobody's business
        return _error(request, 500, "the service failed; its log says why")

    for kind in statuses:
        app.add_exception_handler(kind, expected)
    app.add_exception_handler(Exception, unexpected)


def _error(request: Request, status: int, message: str) -> Response:
    headers = {"Retry-After": "5"} if status == 503 else {}
    if request.url.path in _TABLE_PATHS:
        return Response(error_document(message, "galpipe"), status, headers, VOTABLE)
    word = {400: "UsageError", 404: "NotFound", 503: "ServiceUnavailable"}.get(status, "Error")
    return PlainTextResponse(f"{word}: {message}\n", status, headers)


async def _work(service: Service, task: Callable[[], T]) -> T:
    """Run what reads files in a thread; a client waits no longer than the limit, the thread ends by itself."""
    try:
        with anyio.fail_after(service.limits.seconds):
            return await anyio.to_thread.run_sync(task, abandon_on_cancel=True)
    except TimeoutError as error:
        raise Busy(f"an answer within {service.limits.seconds:g} s", "none; ask for a smaller region") from error


def _table(answer: Answer, form: str) -> Response:
    if form in (VOTABLE, XML):
        return StreamingResponse(pieces(answer), media_type=form)
    plain = answer.table.select([item.name for item in answer.table.schema if not pa.types.is_nested(item.type)])
    # only a VOTable has a place for the mark
    headers = {"X-Overflow": "true"} if answer.overflow else {}
    buffer = io.BytesIO()
    if form == CSV:
        pacsv.write_csv(plain, buffer)
    else:
        with warnings.catch_warnings():
            # about nanomaggies, which have to stay
            warnings.simplefilter("ignore", UnitsWarning)
            to_astropy(plain).write(buffer, format="fits")
    return Response(buffer.getvalue(), headers=headers, media_type=form)


def _base(request: Request, base: str) -> str:
    """Address of the service for answers, which ends in ``/``."""
    return f"{(base or str(request.base_url)).rstrip('/')}/"


class Guard:
    """Refuses long queries and tells browsers what an answer may do.

    Parameters
    ----------
    app : ASGIApp
    most : int
        Characters of the query string.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most
        self._headers = [
            (b"content-security-policy", content_security_policy().encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-cache"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        if len(scope["query_string"]) > self._most:
            refused = PlainTextResponse(f"UsageError: expected at most {self._most} characters of query\n", 414)
            await refused(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)
