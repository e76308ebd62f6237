"""The dataset: its folder, its Parquet parts, the manifests of chunks."""
