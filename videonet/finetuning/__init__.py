"""From a folder of labelled videos to a trained model and a report, with every choice said."""
