"""Where samples come from: lists, folders, Something-Something; one registry."""
