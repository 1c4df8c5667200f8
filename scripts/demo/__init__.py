"""`make demo`: the whole service at work on real input, each step checked as it is shown."""
