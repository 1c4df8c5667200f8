"""The audit: one event for each decision, and where its line goes."""
