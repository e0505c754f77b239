"""Six analytics jobs of a ticketing platform, venue by venue."""
