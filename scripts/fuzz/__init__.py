"""Fuzzing of both doors and the pages."""
