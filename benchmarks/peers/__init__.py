"""What the processes of all peers share. Their scripts find it as `wire`: this folder is on their path."""
