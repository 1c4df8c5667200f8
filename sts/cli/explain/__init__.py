"""sts explain."""
