"""The revisions; what stands in one is never changed after its release."""
