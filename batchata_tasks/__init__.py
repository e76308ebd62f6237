"""Batch enrichment of tables with language models, as Prefect flows with hard cost limits."""
