"""The audit log: one event per decision, and its output."""
