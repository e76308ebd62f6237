"""The application: both providers' routes and the control routes over one shared state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette

from batchata_tasks.emulator.anthropic.api import AnthropicApi
from batchata_tasks.emulator.control.routes import control_routes
from batchata_tasks.emulator.openai.api import OpenAIApi

if TYPE_CHECKING:
    from batchata_tasks.emulator.core.state import Shared


def create_app(shared: Shared) -> Starlette:
    """Assemble an emulator."""
    anthropic, openai = AnthropicApi(shared), OpenAIApi(shared)
    routes = [*anthropic.routes(), *openai.routes()]
    app = Starlette(routes=[*routes, *control_routes(shared, anthropic, openai)])
    app.state.shared = shared
    return app
