"""HTTP in, HTTP out. A door is a function from `Incoming` to `Reply`; Flask serves only what is no door."""
