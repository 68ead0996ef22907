"""The words of the runbooks, one module a family of alerts."""
