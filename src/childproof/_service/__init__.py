"""`launch`: services that are nobody's child."""
