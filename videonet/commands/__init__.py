"""Command lines: ``videonet VERB`` and tools/ call what is here. Arguments first, then imports."""
