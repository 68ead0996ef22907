"""Tools for tests, public: a service tests its own metrics, rules and boards with them."""
