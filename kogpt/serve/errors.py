"""Errors of the server in the form of OpenAI's API. In: a `Refused`, raised anywhere. Out: its HTTP response.

    {"error": {"message", "type", "param", "code"}}

A message says what to do; none contains a path, a key, or a stack trace. What nobody expected becomes a 500 without
details, and its stack trace goes to the server's log.
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that gets an error: HTTP status, what is wrong, the field that is meant, and more headers."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """The error as an HTTP response."""
        return JSONResponse(self.body, self.status, self.headers)


def busy(why: str = "its queue is full") -> Refused:
    """Every place and the whole queue are taken, or every thread for analysis is."""
    message = f"The server is busy: {why}; try again in a second."
    return Refused(429, message, code="queue_full", headers={"Retry-After": "1"})


def stopping() -> Refused:
    """The server ends before the answer does."""
    return Refused(503, "The server is stopping.", code="stopping", headers={"Retry-After": "5"})


def failed() -> Refused:
    """A fault of the server."""
    return Refused(500, "The server failed on this request; its log says why.", code="internal_error")


def add_handlers(app: FastAPI) -> None:
    """Let every error of the app have this form, also those of the framework."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return error.response

    async def of_framework(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = {404: f"There is no {request.url.path[:100]} here.", 405: f"{request.method} is not possible here."}
        return Refused(error.status_code, message.get(error.status_code, error.detail)).response

    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        return failed().response  # the framework raises it again, for the log

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(Exception, unexpected)
