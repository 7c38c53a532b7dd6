"""Against other libraries, which do the same work here."""
