"""Client authentication: a gateway authenticates on every call, also for a cached response."""
