"""What knows nothing of this package's subject: checks of arguments, files, functions of the user's own."""
