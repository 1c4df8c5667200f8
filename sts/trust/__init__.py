"""Whom we believe: the keys of issuers, and the only outbound HTTP."""
