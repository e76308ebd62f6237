"""Prefect's layer: the flows and their tasks. The only package that imports Prefect."""
