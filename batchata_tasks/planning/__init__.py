"""From rows to requests: templates, fingerprints, packing, estimates, the plan."""
