"""How fast it trains, teaches and writes, and how time grows with the work."""
