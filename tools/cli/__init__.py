"""What serves every tool on the terminal: its command line, its options, and what it tells on the way."""
