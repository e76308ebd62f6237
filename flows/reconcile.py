"""Deployment entrypoint `flows/reconcile.py:reconcile`: the providers' batches against the ledger."""

from batchata_tasks.flows.reconcile import reconcile

__all__ = ["reconcile"]
