"""What the checks measure: gradients, losses, paths, surfaces, survivors, and what PGD sees on its way."""

from sanity.measure import batches, examples, gradients, losses, path, readout, surface, surrogate, survivors, trace

__all__ = [
    "batches",
    "examples",
    "gradients",
    "losses",
    "path",
    "readout",
    "surface",
    "surrogate",
    "survivors",
    "trace",
]
