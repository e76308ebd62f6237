"""Common to all calls of the OpenAI API: keys, errors and headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchata_tasks.emulator.core.refusals import ApiError
from batchata_tasks.emulator.core.routes import INVALID_KEY
from batchata_tasks.emulator.core.shapes import Json
from batchata_tasks.emulator.core.state import new_id

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class OpenAIStyle:
    """Headers, keys and errors in OpenAI's form."""

    provider = "openai"

    def authenticate(self, request: Request) -> str:
        """Take the bearer token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else ""
        key = key or request.headers.get("x-api-key", "")
        if not key:
            raise ApiError(401, "You didn't provide an API key.")
        if key == INVALID_KEY:
            raise self.invalid_key()
        return key

    def invalid_key(self) -> ApiError:
        """Return the error for a key that is not valid (any more)."""
        return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    def error(self, error: ApiError) -> Response:
        """Return an error in OpenAI's envelope."""
        kind = {"api_error": "server_error", "rate_limit_error": "requests"}.get(error.kind)
        details = {
            "message": error.message,
            "type": kind or error.kind,
            "param": error.param,
            "code": error.code,
        }
        return Json({"error": details}, status_code=error.status, headers=error.headers)

    def headers(self, response: Response) -> dict[str, str]:
        """Return the headers of every answer."""
        del response
        return {
            "x-request-id": new_id("req_", 32),
            "openai-version": "2020-10-01",
            "openai-processing-ms": "1",
        }
