"""Lookups that a decision needs from outside: rows of tables, and OPA."""
