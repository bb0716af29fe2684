"""What is rendered from cards and results: figures, tables, pages."""
