"""What goes out: a decision becomes a signed token, with the keys of the ring."""
