"""What was applied: entries, plan, status, marks, history, drift."""
