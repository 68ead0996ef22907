"""Lines for a person to read: out of Elasticsearch, out of the spool, or out of both, each once."""
