"""The command line and the capacity page: the only floor that knows all the others."""
