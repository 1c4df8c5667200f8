"""Mints tokens: turns a decision into a token, signed with a key of the key ring."""
