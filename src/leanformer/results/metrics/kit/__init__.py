"""What several metrics share. The registry of metrics looks for none here."""
