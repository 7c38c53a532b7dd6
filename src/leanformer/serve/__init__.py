"""What models answer to users: the commands that predict and translate."""
