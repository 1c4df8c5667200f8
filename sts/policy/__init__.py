"""The decision as pure functions: admit, consent, map, decide. Clock, stores and tables are passed in as arguments."""
