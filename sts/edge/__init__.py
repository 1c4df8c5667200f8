"""HTTP requests and answers. A door is a function from `Incoming` to `Reply`; Flask serves only the other pages."""
