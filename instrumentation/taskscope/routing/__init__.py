"""Which route answered: the template of a request's route, never its raw path."""
