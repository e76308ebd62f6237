"""Deployment entrypoint by path, `flows/plan.py:plan`.

Reports what a run would send, why, and what it would cost. Sends nothing.
"""

from batchata_tasks.flows.plan import plan

__all__ = ["plan"]
