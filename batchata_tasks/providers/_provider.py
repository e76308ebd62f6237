"""Provider: what an adapter derives from."""

from __future__ import annotations

from batchata_tasks.providers._base import Primitives


class Provider(Primitives):
    """One provider's batch API. An adapter derives from this and supplies the primitives; `register` makes it known."""
