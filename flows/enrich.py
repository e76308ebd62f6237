"""Deployment entrypoint by path, `flows/enrich.py:enrich`: adds columns from a model to a table.

     spec ───┐
     source ─┴─► plan ─► chunk ─► guard ─► submit ─► poll ─► collect ─► land ─► receipt

The flow is in the installed package, so that `batchata run` and deployments run the same one; its
steps are put together in `batchata_tasks/pipeline/enrich.py`. prefect.yaml names the package's own,
`batchata_tasks.flows.enrich.enrich`, for which no file is needed; this one is for deployments that
name a file, and to run the flow by hand: `python flows/enrich.py`.
"""

from batchata_tasks.flows.enrich import enrich

__all__ = ["enrich"]

if __name__ == "__main__":
    enrich("deployments/specs/package-topics.yaml")
