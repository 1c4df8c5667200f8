"""Pure decisions: admit, consent, map, decide. No clock, no store, no network: everything is an argument."""
