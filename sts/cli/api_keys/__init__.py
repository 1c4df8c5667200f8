"""sts api-keys."""
