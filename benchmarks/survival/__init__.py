"""What ends training, evaluations and judgements early, and what is left of them: `python -m benchmarks.survival`."""
