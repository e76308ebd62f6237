"""Deployment entrypoint by path, `flows/reconcile.py:reconcile`.

Compares the providers' batches with the ledger.
"""

from batchata_tasks.flows.reconcile import reconcile

__all__ = ["reconcile"]
