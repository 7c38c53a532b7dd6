"""The blocks that can stand at a site, one in each module. Each registers itself; plans find it by its name."""
