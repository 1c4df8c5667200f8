"""The commands `sts api-keys`."""
