"""Caches, which may be lost at any time: minted tokens, and refusals, for repeated requests."""
