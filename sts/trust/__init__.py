"""Trust in others: the keys of issuers and backends, and the only outbound HTTP."""
