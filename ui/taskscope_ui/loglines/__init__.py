"""Log lines as a person reads them at a terminal."""
