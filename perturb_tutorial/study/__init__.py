"""What the chapters share, one module for each section of the supplement."""
