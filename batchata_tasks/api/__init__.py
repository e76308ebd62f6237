"""What Python code uses: Batch and its runs, results, state files, providers by themselves."""
