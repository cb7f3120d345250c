"""Which labels are probably wrong, and why."""
