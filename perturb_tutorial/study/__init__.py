"""What the chapters share, a module a section of the supplement."""
