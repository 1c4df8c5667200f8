"""sts keys."""
