"""The life of signing keys: made, published, signing, retired, gone.

A key's state is a function of the clock over the times in its record, so that every replica that reads the same ring
agrees without a word. `record` has the values, `lifecycle` reads them, `rotation` changes them, a `store` keeps them
sealed and authentic, `keyring` is what a worker signs and publishes with.
"""
