"""The lifecycle of signing keys: published, active, retired, removed, revoked.

The state of a key follows from the times in its record and the clock. Replicas that read the same ring therefore agree
without coordination. `record` defines the values, `lifecycle` computes states, `rotation` changes the ring, a `store`
keeps it sealed and authentic, and a worker signs and publishes with `keyring`.
"""
