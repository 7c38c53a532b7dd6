"""Whether decisions are right as often as they promise, where the truth is known."""
