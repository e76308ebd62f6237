"""What only looks: plans, status, rows, costs."""
