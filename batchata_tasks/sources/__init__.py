"""Where rows come from: CSV, JSONL and Parquet files, queries, and documents."""
