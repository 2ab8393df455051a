"""Files that others made, read into a Graph or a QGraph; what cannot be carried is refused by name."""
