"""The commands: `sts init`, `serve`, `check`, `explain`, `exchange`, `keys`, `clients`, `health`, `version`."""
