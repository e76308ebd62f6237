"""Deployment entrypoint `flows/reconcile.py:reconcile`: the providers' batches against the ledger."""

from batchata_tasks.flow_care import reconcile

__all__ = ["reconcile"]
