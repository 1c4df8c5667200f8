"""The commands `sts keys`."""
