"""One request, one observation: the outermost ASGI layer and what it knows of a request."""
