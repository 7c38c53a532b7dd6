"""What benchmarks share: their interface, how they measure, and how their figures come onto the pages."""
