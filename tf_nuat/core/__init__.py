"""Modules that are independent of this package's subject: checks of arguments, files, the user's own functions."""
