"""The command `sts explain`."""
