"""Deployment entrypoint by path, `flows/cancel.py:cancel`.

Cancels the open batches of a spec and lands what ran.
"""

from batchata_tasks.flows.cancel import cancel

__all__ = ["cancel"]
