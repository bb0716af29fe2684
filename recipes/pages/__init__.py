"""Renders cards and results: figures, tables, pages."""
