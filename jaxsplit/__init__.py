"""jaxsplit: how much of a budget a shared seed should get, and how much each domain's specialist."""

__version__ = "0.1.0"
