"""Speed, memory and arithmetic of models and of the data pipeline, side by side with peers."""
