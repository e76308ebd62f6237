"""Deployment entrypoint `flows/cancel.py:cancel`: cancels the open batches of a spec and lands what ran."""

from batchata_tasks.flow_care import cancel

__all__ = ["cancel"]
