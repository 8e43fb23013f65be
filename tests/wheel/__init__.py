"""Try the built wheel and source archive in clean environments: ``make wheel-test``."""
