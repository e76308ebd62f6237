"""What changes runs from outside: cancel, reconcile, rebuild."""
