"""Where the pages take their values from."""
