"""Deployment entrypoint `flows/enrich.py:enrich`: adds columns from a language model to a table.

     spec ───┐
     source ─┴─► plan ─► chunk ─► guard ─► submit ─► poll ─► collect ─► land ─► receipt

The flow is in the installed package, so that `batchata run` and deployments run the same one; its
steps are put together in `batchata_tasks/pipeline/enrich.py`.
"""

from batchata_tasks.flows.enrich import enrich

__all__ = ["enrich"]

if __name__ == "__main__":
    enrich("deployments/specs/package-topics.yaml")
