"""The way from a spec to a receipt, over the steps of `execution`."""
