"""A small shop: how a service declares, measures and tests itself with taskscope."""
