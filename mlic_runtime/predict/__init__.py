"""From a picture and a caption to labels: `Predictor` and `Prediction`."""
