"""From the spool to Elasticsearch: every line arrives, once."""
