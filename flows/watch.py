"""Deployment entrypoint by path, `flows/watch.py:watch`.

Looks once at all open batches, resumes flow runs that wait for them, lands what is nobody's.
"""

from batchata_tasks.flows.watch import watch

__all__ = ["watch"]
