"""Protection against faults of external services: a circuit breaker, and a bulkhead that callers share fairly."""
