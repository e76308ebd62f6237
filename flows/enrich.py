"""Deployment entrypoint `flows/enrich.py:enrich`: a table gets new columns from a language model.

     spec ───┐
     source ─┴─► plan ─► chunk ─► guard ─► submit ─► poll ─► collect ─► land ─► receipt

The flow lives in the installed package, so that `batchata run` and deployments run the same one;
`batchata_tasks/pipeline/enrich.py` is the way itself.
"""

from batchata_tasks.flows.enrich import enrich

__all__ = ["enrich"]

if __name__ == "__main__":
    enrich("deployments/specs/package-topics.yaml")
