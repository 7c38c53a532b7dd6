"""What can stand at a site, one block a module. Each registers itself; plans find it by its name."""
