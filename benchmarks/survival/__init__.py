"""Disturbs training, evaluations and judgements, and counts what survives: `python -m benchmarks.survival`."""
