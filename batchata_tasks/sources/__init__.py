"""Where rows come from: CSV, JSONL and Parquet files, workbooks, queries, and documents."""
