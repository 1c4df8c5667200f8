"""`make bench`: requests a second and latencies, beside a constant answer and the raw cryptography, in one run."""
