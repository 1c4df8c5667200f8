"""Inbound credentials: one module per kind. A kind extracts and proves facts; it does not judge them."""
