"""Reading videos: one seam for every decoder, and one place that says what a file contains."""
