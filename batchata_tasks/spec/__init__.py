"""The descriptions of a run: an enrichment of a table, or Jobs."""
