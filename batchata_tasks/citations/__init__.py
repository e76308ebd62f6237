"""The evidence for an answer's fields: which citation supports which field, and how well."""
