"""Functions for any `keras.Model`: copy and average its weights, compute in 16 bits."""
